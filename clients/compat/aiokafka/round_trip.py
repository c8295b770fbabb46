"""aiokafka: topics, every codec, an idempotent producer, a group, configurations, record and topic deletion."""

import asyncio
import sys
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

SERVER = sys.argv[1]
RUN = uuid.uuid4().hex[:8]
TOPIC, GROUP, COUNT = f"aiokafka-{RUN}", f"aiokafka-group-{RUN}", 50
CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
PARTITION = TopicPartition(TOPIC, 0)
passed = failed = 0


def check(name, ok, detail=""):
    """Counts one check."""
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print(f"FAILED {name} {detail}")


def expected():
    return [(f"{codec}-{i}".encode(), f"value {i} ".encode() * 20, (("codec", str(codec).encode()), ("empty", b""), ("codec", b"again")))
            for codec in CODECS for i in range(COUNT)]


async def produce(admin):
    await admin.create_topics([NewTopic(TOPIC, 1, 1, topic_configs={"retention.ms": "7200000"})])
    offsets = []
    for codec in CODECS:
        async with AIOKafkaProducer(bootstrap_servers=SERVER, compression_type=codec, enable_idempotence=True, linger_ms=20) as producer:
            sent = [await producer.send(TOPIC, v, k, headers=list(h)) for k, v, h in expected() if k.startswith(f"{codec}-".encode())]
            offsets += [(await future).offset for future in sent]
    check("offsets in order", offsets == list(range(len(CODECS) * COUNT)), offsets[:5])


def consumer():
    return AIOKafkaConsumer(TOPIC, bootstrap_servers=SERVER, group_id=GROUP, auto_offset_reset="earliest", enable_auto_commit=False)


async def consume(admin):
    async with consumer() as first:
        messages = [await asyncio.wait_for(first.getone(), 20) for _ in range(len(CODECS) * COUNT)]
        check("content, order and headers", [(m.key, m.value, m.headers) for m in messages] == expected())
        await first.commit({PARTITION: (120, "half way")})
        check("commit is read back", await first.committed(PARTITION) == 120)
        check("end offset", (await first.end_offsets([PARTITION]))[PARTITION] == 250)
        when = await first.offsets_for_times({PARTITION: messages[0].timestamp})
        check("offset by time", when[PARTITION].offset == 0, when)
    async with consumer() as second:
        check("resumes at the commit", (await asyncio.wait_for(second.getone(), 20)).offset == 120)
        await second.commit()
        check("group is listed", GROUP in [g[0] for g in await admin.list_consumer_groups()])
        (response,) = await admin.describe_consumer_groups([GROUP])
        check("group is stable with one member", (response.groups[0][2], len(response.groups[0][5])) == ("Stable", 1), response)
    offsets = await admin.list_consumer_group_offsets(GROUP)
    check("admin reads offsets", offsets[PARTITION].offset == 121, offsets)


async def administer(admin):
    resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC)
    (response,) = await admin.describe_configs([resource])
    values = {entry[0]: entry[1] for entry in response.resources[0][4]}
    check("configs are reported", values.get("retention.ms") == "7200000" and values.get("cleanup.policy") == "delete", len(values))
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, configs={"retention.ms": "3600000"})])
    await asyncio.sleep(0.5)
    (response,) = await admin.describe_configs([resource])
    check("config is altered", {e[0]: e[1] for e in response.resources[0][4]}["retention.ms"] == "3600000")
    check("cluster", len((await admin.describe_cluster())["brokers"]) == 1)
    await admin.create_partitions({TOPIC: NewPartitions(3)})
    await asyncio.sleep(0.5)
    check("three partitions", len((await admin.describe_topics([TOPIC]))[0]["partitions"]) == 3)
    deleted = await admin.delete_records({PARTITION: RecordsToDelete(before_offset=100)})
    check("records are deleted", deleted[PARTITION] == 100, deleted)
    await admin.delete_topics([TOPIC])
    await asyncio.sleep(0.5)
    check("topic is gone", TOPIC not in await admin.list_topics())


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=SERVER)
    await admin.start()
    for part in (produce, consume, administer):
        try:
            await asyncio.wait_for(part(admin), 90)
        except Exception as error:  # noqa: BLE001
            check(part.__name__, False, repr(error))
    await admin.close()
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(asyncio.run(main()))
