// franz-go: topics, every codec, an idempotent producer, a group, configurations, record and topic deletion.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const count = 50

var (
	server         = os.Args[1]
	run            = fmt.Sprintf("%x", time.Now().UnixNano()&0xffffffff)
	topic          = "go-" + run
	group          = "go-group-" + run
	passed, failed int
	names          = []string{"none", "gzip", "snappy", "lz4", "zstd"}
	codecs         = []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
)

// check counts one check.
func check(name string, ok bool, detail any) {
	if ok {
		passed++
		return
	}
	failed++
	fmt.Printf("FAILED %s %v\n", name, detail)
}

func client(options ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(server), kgo.RecordDeliveryTimeout(30 * time.Second)}, options...)...)
	if err != nil {
		panic(err)
	}
	return c
}

func expected() []*kgo.Record {
	var out []*kgo.Record
	for _, name := range names {
		for i := 0; i < count; i++ {
			out = append(out, &kgo.Record{
				Topic: topic, Key: []byte(fmt.Sprintf("%s-%d", name, i)), Value: []byte(strings.Repeat(fmt.Sprintf("value %d ", i), 20)),
				Headers: []kgo.RecordHeader{{Key: "codec", Value: []byte(name)}, {Key: "empty", Value: []byte{}}, {Key: "codec", Value: []byte("again")}},
			})
		}
	}
	return out
}

func text(r *kgo.Record) string { return fmt.Sprintf("%s %s %q", r.Key, r.Value, r.Headers) }

func produce(ctx context.Context, admin *kadm.Client) {
	retention := "7200000"
	_, err := admin.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &retention}, topic)
	check("topic is created", err == nil, err)
	ordered, next := true, int64(0)
	for at, codec := range codecs {
		c := client(kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(20*time.Millisecond))
		results := c.ProduceSync(ctx, expected()[at*count:(at+1)*count]...)
		check("produce "+names[at], results.FirstErr() == nil, results.FirstErr())
		for _, r := range results {
			ordered = ordered && r.Record.Offset == next
			next++
		}
		c.Close()
	}
	check("offsets in order", ordered, next)
}

func consumer() *kgo.Client {
	return client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
}

func take(ctx context.Context, c *kgo.Client, n int) []*kgo.Record {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n && ctx.Err() == nil {
		out = append(out, c.PollFetches(ctx).Records()...)
	}
	return out
}

func consume(ctx context.Context, admin *kadm.Client) {
	first, want := consumer(), expected()
	records := take(ctx, first, len(want))
	same := len(records) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = text(records[i]) == text(want[i]) && records[i].Offset == int64(i)
	}
	check("content, order and headers", same, len(records))
	err := first.CommitRecords(ctx, records[119])
	check("commit", err == nil, err)
	first.Close()
	second := consumer()
	resumed := take(ctx, second, 1)
	check("resumes at the commit", len(resumed) > 0 && resumed[0].Offset == 120, len(resumed))
	groups, err := admin.ListGroups(ctx)
	check("group is listed", err == nil && groups[group].Group == group, err)
	described, err := admin.DescribeGroups(ctx, group)
	check("group is stable with one member", err == nil && described[group].State == "Stable" && len(described[group].Members) == 1, described[group].State)
	second.Close()
	offsets, err := admin.FetchOffsets(ctx, group)
	at, _ := offsets.Lookup(topic, 0)
	check("admin reads offsets", err == nil && at.At == 120, at)
	reset := make(kadm.Offsets)
	reset.AddOffset(topic, 0, 10, -1)
	err = admin.CommitAllOffsets(ctx, group, reset)
	offsets, _ = admin.FetchOffsets(ctx, group)
	at, _ = offsets.Lookup(topic, 0)
	check("admin resets offsets", err == nil && at.At == 10, err)
	deleted, err := admin.DeleteGroups(ctx, group)
	check("group is deleted", err == nil && deleted.Error() == nil, err)
}

func config(ctx context.Context, admin *kadm.Client, name string) string {
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil || len(configs) != 1 {
		return fmt.Sprint(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == name && c.Value != nil {
			return *c.Value
		}
	}
	return "absent"
}

func administer(ctx context.Context, admin *kadm.Client) {
	check("configs are reported", config(ctx, admin, "retention.ms") == "7200000" && config(ctx, admin, "cleanup.policy") == "delete", "")
	value := "3600000"
	_, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, topic)
	time.Sleep(500 * time.Millisecond)
	check("config is altered", err == nil && config(ctx, admin, "retention.ms") == value, err)
	brokers, err := admin.BrokerMetadata(ctx)
	check("cluster", err == nil && len(brokers.Brokers) == 1, err)
	_, err = admin.UpdatePartitions(ctx, 3, topic)
	time.Sleep(500 * time.Millisecond)
	topics, _ := admin.ListTopics(ctx, topic)
	check("three partitions", err == nil && len(topics[topic].Partitions) == 3, err)
	cut := make(kadm.Offsets)
	cut.AddOffset(topic, 0, 100, -1)
	deleted, err := admin.DeleteRecords(ctx, cut)
	low, _ := deleted.Lookup(topic, 0)
	check("records are deleted", err == nil && low.LowWatermark == 100, low)
	starts, err := admin.ListStartOffsets(ctx, topic)
	start, _ := starts.Lookup(topic, 0)
	check("earliest has moved", err == nil && start.Offset == 100, start)
	largest, err := admin.ListOffsetsAfterMilli(ctx, -3, topic)
	top, _ := largest.Lookup(topic, 0)
	check("offset of the largest timestamp", err == nil && top.Offset >= 100, top)
	_, err = admin.DeleteTopic(ctx, topic)
	time.Sleep(500 * time.Millisecond)
	topics, _ = admin.ListTopics(ctx, topic)
	check("topic is gone", err == nil && topics[topic].Err == kerr.UnknownTopicOrPartition, topics[topic].Err)
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := client()
	admin := kadm.NewClient(c)
	for _, part := range []func(context.Context, *kadm.Client){produce, consume, administer} {
		func() {
			defer func() {
				if err := recover(); err != nil {
					check("part", false, err)
				}
			}()
			part(ctx, admin)
		}()
	}
	c.Close()
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
