// Kafka's Java client: topics, every codec, an idempotent producer, a group, configurations, record and topic deletion.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public final class RoundTrip {
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final int COUNT = 50;
    private final String server;
    private final String run = UUID.randomUUID().toString().substring(0, 8);
    private final String topic = "java-" + run;
    private final String group = "java-group-" + run;
    private final TopicPartition partition = new TopicPartition(topic, 0);
    private int passed;
    private int failed;

    private RoundTrip(String server) {
        this.server = server;
    }

    private interface Part {
        void run() throws Exception;
    }

    private void check(String name, boolean ok, Object detail) {
        if (ok) {
            passed++;
        } else {
            failed++;
            System.out.println("FAILED " + name + " " + detail);
        }
    }

    private void step(String name, Part part) {
        try {
            part.run();
        } catch (Exception error) {
            check(name, false, error);
        }
    }

    private static <T> T get(Future<T> future) throws Exception {
        return future.get(30, TimeUnit.SECONDS);
    }

    private Map<String, Object> settings(Object... pairs) {
        Map<String, Object> out = new HashMap<>();
        out.put("bootstrap.servers", server);
        for (int i = 0; i < pairs.length; i += 2) {
            out.put((String) pairs[i], pairs[i + 1]);
        }
        return out;
    }

    private Admin admin() {
        return Admin.create(settings());
    }

    private static String value(int i) {
        return ("value " + i + " ").repeat(20);
    }

    private void produce() throws Exception {
        try (Admin admin = admin()) {
            get(admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1).configs(Map.of("retention.ms", "7200000")))).all());
        }
        boolean ordered = true;
        long next = 0;
        for (String codec : CODECS) {
            try (KafkaProducer<String, String> producer = new KafkaProducer<>(
                    settings("compression.type", codec, "enable.idempotence", true, "linger.ms", 20), new StringSerializer(), new StringSerializer())) {
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (int i = 0; i < COUNT; i++) {
                    ProducerRecord<String, String> record = new ProducerRecord<>(topic, codec + "-" + i, value(i));
                    record.headers().add("codec", codec.getBytes(StandardCharsets.UTF_8)).add("empty", new byte[0]).add("codec", null);
                    sent.add(producer.send(record));
                }
                for (Future<RecordMetadata> one : sent) {
                    ordered &= get(one).offset() == next++;
                }
            }
        }
        check("offsets in order", ordered, next);
    }

    private KafkaConsumer<String, String> consumer() {
        KafkaConsumer<String, String> consumer = new KafkaConsumer<>(
                settings("group.id", group, "auto.offset.reset", "earliest", "enable.auto.commit", false), new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    private static List<ConsumerRecord<String, String>> take(KafkaConsumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> out = new ArrayList<>();
        long deadline = System.nanoTime() + 30_000_000_000L;
        while (out.size() < count && System.nanoTime() < deadline) {
            consumer.poll(Duration.ofMillis(200)).forEach(out::add);
        }
        return out;
    }

    private static boolean sameAsSent(List<ConsumerRecord<String, String>> records) {
        for (int i = 0; i < records.size(); i++) {
            ConsumerRecord<String, String> record = records.get(i);
            String codec = CODECS.get(i / COUNT);
            Header[] headers = record.headers().toArray();
            boolean same = record.offset() == i && record.key().equals(codec + "-" + i % COUNT) && record.value().equals(value(i % COUNT))
                    && headers.length == 3 && Arrays.equals(headers[0].value(), codec.getBytes(StandardCharsets.UTF_8)) && headers[2].value() == null;
            if (!same) {
                return false;
            }
        }
        return records.size() == COUNT * CODECS.size();
    }

    private void consume() throws Exception {
        long first;
        try (KafkaConsumer<String, String> consumer = consumer()) {
            List<ConsumerRecord<String, String>> records = take(consumer, COUNT * CODECS.size());
            check("content, order and headers", sameAsSent(records), records.size());
            first = records.get(0).timestamp();
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(120, "half way")));
            OffsetAndMetadata committed = consumer.committed(java.util.Set.of(partition)).get(partition);
            check("commit is read back", committed.offset() == 120 && committed.metadata().equals("half way"), committed);
            check("offset by time", consumer.offsetsForTimes(Map.of(partition, first)).get(partition).offset() == 0, "");
            check("end offset", consumer.endOffsets(List.of(partition)).get(partition) == 250, "");
        }
        try (KafkaConsumer<String, String> consumer = consumer(); Admin admin = admin()) {
            List<ConsumerRecord<String, String>> resumed = take(consumer, 1);
            check("resumes at the commit", !resumed.isEmpty() && resumed.get(0).offset() == 120, resumed.size());
            check("group is listed", get(admin.listConsumerGroups().all()).stream().anyMatch(g -> g.groupId().equals(group)), "");
            ConsumerGroupDescription described = get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
            check("group is stable with one member", described.state().toString().equals("Stable") && described.members().size() == 1, described);
        }
        try (Admin admin = admin()) {
            check("admin reads offsets", offset(admin) == 120, "");
            get(admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(10))).all());
            check("admin resets offsets", offset(admin) == 10, "");
            get(admin.deleteConsumerGroups(List.of(group)).all());
            check("group is gone", get(admin.listConsumerGroups().all()).stream().noneMatch(g -> g.groupId().equals(group)), "");
        }
    }

    private long offset(Admin admin) throws Exception {
        return get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).get(partition).offset();
    }

    private Config configs(Admin admin, ConfigResource resource) throws Exception {
        return get(admin.describeConfigs(List.of(resource)).all()).get(resource);
    }

    private void administer() throws Exception {
        try (Admin admin = admin()) {
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            Config before = configs(admin, resource);
            check("configs are reported", before.get("retention.ms").value().equals("7200000") && before.get("cleanup.policy").isDefault(), before.entries().size());
            Collection<AlterConfigOp> change = List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "3600000"), AlterConfigOp.OpType.SET));
            get(admin.incrementalAlterConfigs(Map.of(resource, change)).all());
            Thread.sleep(500);
            check("config is altered", configs(admin, resource).get("retention.ms").value().equals("3600000"), "");
            int node = get(admin.describeCluster().nodes()).iterator().next().id();
            check("broker configs", configs(admin, new ConfigResource(ConfigResource.Type.BROKER, "" + node)).get("num.partitions") != null, node);
            get(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all());
            Thread.sleep(500);
            check("three partitions", get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size() == 3, "");
            long low = get(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(100))).lowWatermarks().get(partition)).lowWatermark();
            check("records are deleted", low == 100, low);
            check("earliest has moved", get(admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all()).get(partition).offset() == 100, "");
            check("largest timestamp", get(admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).all()).get(partition).offset() >= 100, "");
            get(admin.deleteTopics(List.of(topic)).all());
            Thread.sleep(500);
            check("topic is gone", !get(admin.listTopics().names()).contains(topic), "");
        }
    }

    public static void main(String[] arguments) {
        RoundTrip trip = new RoundTrip(arguments[0]);
        trip.step("produce", trip::produce);
        trip.step("consume", trip::consume);
        trip.step("administer", trip::administer);
        System.out.println(trip.passed + " passed, " + trip.failed + " failed");
        System.exit(trip.failed == 0 ? 0 : 1);
    }
}
