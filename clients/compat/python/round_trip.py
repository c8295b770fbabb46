"""confluent-kafka: topics, every codec, an idempotent producer, a group, configurations, record and topic deletion."""

import sys
import time
import uuid

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

SERVER = sys.argv[1]
RUN = uuid.uuid4().hex[:8]
TOPIC, GROUP, COUNT = f"python-{RUN}", f"python-group-{RUN}", 50
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
passed = failed = 0


def check(name, ok, detail=""):
    """Counts one check."""
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print(f"FAILED {name} {detail}")


def step(name, function):
    """Runs one part; what it raises is one failure."""
    try:
        function()
    except Exception as error:  # noqa: BLE001
        check(name, False, repr(error))


def all_of(futures):
    return {key: future.result(20) for key, future in futures.items()}


def expected():
    return [(f"{codec}-{i}".encode(), f"value {i} ".encode() * 20, [("codec", codec.encode()), ("empty", b""), ("codec", b"again")])
            for codec in CODECS for i in range(COUNT)]


def produce():
    admin = AdminClient({"bootstrap.servers": SERVER})
    all_of(admin.create_topics([NewTopic(TOPIC, 1, 1, config={"retention.ms": "7200000"})]))
    reports = []
    for codec in CODECS:
        producer = Producer({"bootstrap.servers": SERVER, "compression.type": codec, "enable.idempotence": True, "linger.ms": 20})
        for key, value, headers in [e for e in expected() if e[0].startswith(codec.encode() + b"-")]:
            producer.produce(TOPIC, value, key, headers=headers, on_delivery=lambda e, m: reports.append((e, m.offset())))
        producer.flush(30)
    check("all delivered", all(e is None for e, _ in reports), reports[:1])
    check("offsets in order", [o for _, o in reports] == list(range(len(CODECS) * COUNT)))


def consumer(**more):
    return Consumer({"bootstrap.servers": SERVER, "group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                     "enable.partition.eof": False, "check.crcs": True, **more})


def take(client, count, seconds=30):
    out, deadline = [], time.monotonic() + seconds
    while len(out) < count and time.monotonic() < deadline:
        message = client.poll(0.2)
        if message is not None and message.error() is None:
            out.append(message)
    return out


def consume():
    first = consumer()
    first.subscribe([TOPIC])
    messages = take(first, len(CODECS) * COUNT)
    check("content, order and headers", [(m.key(), m.value(), m.headers()) for m in messages] == expected(), len(messages))
    first.commit(offsets=[TopicPartition(TOPIC, 0, 120, metadata="half way")], asynchronous=False)
    committed = first.committed([TopicPartition(TOPIC, 0)], 10)[0]
    check("commit is read back", (committed.offset, committed.metadata) == (120, "half way"), committed)
    check("watermarks", first.get_watermark_offsets(TopicPartition(TOPIC, 0), 10) == (0, 250))
    when = first.offsets_for_times([TopicPartition(TOPIC, 0, messages[0].timestamp()[1])], 10)[0]
    check("offset by time", when.offset == 0, when)
    first.close()
    second = consumer()
    second.subscribe([TOPIC])
    resumed = take(second, 1)
    check("resumes at the commit", resumed and resumed[0].offset() == 120, resumed)
    second.commit(asynchronous=False)
    admin = AdminClient({"bootstrap.servers": SERVER})
    check("group is listed", GROUP in [g.group_id for g in admin.list_consumer_groups().result(20).valid])
    described = all_of(admin.describe_consumer_groups([GROUP]))[GROUP]
    check("group is stable with one member", (described.state.name, len(described.members)) == ("STABLE", 1), described.state)
    second.close()


def group_admin():
    admin = AdminClient({"bootstrap.servers": SERVER})
    offsets = all_of(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)]))[GROUP].topic_partitions
    check("admin reads offsets", [(p.topic, p.offset) for p in offsets] == [(TOPIC, 121)], offsets)
    all_of(admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP, [TopicPartition(TOPIC, 0, 10)])]))
    offsets = all_of(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)]))[GROUP].topic_partitions
    check("admin resets offsets", offsets[0].offset == 10, offsets)
    all_of(admin.delete_consumer_groups([GROUP]))
    check("group is gone", GROUP not in [g.group_id for g in admin.list_consumer_groups().result(20).valid])


def administer():
    admin = AdminClient({"bootstrap.servers": SERVER})
    resource = ConfigResource(ResourceType.TOPIC, TOPIC)
    configs = all_of(admin.describe_configs([resource]))[resource]
    check("configs are reported", configs["retention.ms"].value == "7200000" and configs["cleanup.policy"].value == "delete", len(configs))
    change = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=[ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)])
    all_of(admin.incremental_alter_configs([change]))
    time.sleep(0.5)
    check("config is altered", all_of(admin.describe_configs([resource]))[resource]["retention.ms"].value == "3600000")
    broker = str(next(iter(admin.list_topics(timeout=10).brokers)))
    check("broker configs", "num.partitions" in all_of(admin.describe_configs([ConfigResource(ResourceType.BROKER, broker)])).popitem()[1])
    check("cluster", len(admin.describe_cluster().result(20).nodes) == 1)
    all_of(admin.create_partitions([NewPartitions(TOPIC, 3)]))
    time.sleep(0.5)
    check("three partitions", len(admin.list_topics(TOPIC, 10).topics[TOPIC].partitions) == 3)
    deleted = all_of(admin.delete_records([TopicPartition(TOPIC, 0, 100)]))
    check("records are deleted", next(iter(deleted.values())).low_watermark == 100, deleted)
    latest = all_of(admin.list_offsets({TopicPartition(TOPIC, 0): OffsetSpec.earliest()})).popitem()[1]
    check("earliest has moved", latest.offset == 100, latest)
    all_of(admin.delete_topics([TOPIC]))
    time.sleep(0.5)
    check("topic is gone", TOPIC not in admin.list_topics(timeout=10).topics)


for part in (produce, consume, group_admin, administer):
    step(part.__name__, part)
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
