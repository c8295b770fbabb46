"""Produce: what is accepted, what is refused and with which code, and what a Fetch then returns."""

import time

from wire import batch
from wire.batch import record


def read_back(t, topic, partition=0, label="read", quiet=False):
    return t.send(label, "Fetch", 12, {"MaxWaitMs": 100, "MinBytes": 0, "SessionEpoch": -1, "Topics": [
        {"Topic": topic, "Partitions": [{"Partition": partition, "CurrentLeaderEpoch": -1, "PartitionMaxBytes": 1 << 20}]}]}, quiet=quiet)


def wrong_batches(t):
    """One wrong thing at a time."""
    topic, now = t.topic("wrong"), t.base_time
    good = [(b"k", b"v"), (b"k2", b"v2")]
    whole = batch.batch(good, timestamp=now)
    cases = {
        "good": whole,
        "crc": batch.batch(good, timestamp=now, crc=1),
        "magic 3": batch.batch(good, timestamp=now, magic=3),
        "magic 1": batch.batch(good, timestamp=now, magic=1),
        "magic -1": batch.batch(good, timestamp=now, magic=-1),
        "length short": batch.batch(good, timestamp=now, length=48),
        "length long": batch.batch(good, timestamp=now, length=100000),
        "length negative": batch.batch(good, timestamp=now, length=-5),
        "cut": whole[:-3],
        "header only": whole[:40],
        "two batches": whole + whole,
        "trailing bytes": whole + b"\0\0\0",
        "empty": b"",
        "count 0": batch.batch([], timestamp=now),
        "count more": batch.batch(good, timestamp=now, count=3),
        "count less": batch.batch(good, timestamp=now, count=1),
        "count negative": batch.batch(good, timestamp=now, count=-1),
        "last delta": batch.batch(good, timestamp=now, last_delta=5),
        "base offset": batch.batch(good, timestamp=now, base_offset=77),
        "leader epoch": batch.batch(good, timestamp=now, epoch=99),
        "control": batch.batch(good, timestamp=now, attributes=32),
        "transactional": batch.batch(good, timestamp=now, attributes=16),
        "log append bit": batch.batch(good, timestamp=now, attributes=8),
        "horizon bit": batch.batch(good, timestamp=now, attributes=64),
        "codec 5": batch.batch(good, timestamp=now, attributes=5),
        "codec 7": batch.batch(good, timestamp=now, attributes=7),
        "sequence -1 with pid": batch.batch(good, timestamp=now, pid=5, pid_epoch=0),
        "gzip": batch.batch(good, timestamp=now, codec="gzip"),
        "gzip garbage": batch.batch(good, timestamp=now, attributes=1, raw=b"not gzip at all"),
        "snappy garbage": batch.batch(good, timestamp=now, attributes=2, raw=b"\xff\xff\xff\xff\x0f1234567890"),
        "lz4 garbage": batch.batch(good, timestamp=now, attributes=3, raw=b"\x04\x22\x4d\x18garbage"),
        "zstd garbage": batch.batch(good, timestamp=now, attributes=4, raw=b"\x28\xb5\x2f\xfdgarbage"),
        "record length": batch.batch(good, timestamp=now, raw=record(b"k", b"v", 0) + record(b"k", b"v", 1, length=99)),
        "record delta": batch.batch(good, timestamp=now, raw=record(b"k", b"v", 0) + record(b"k", b"v", 7)),
        "records trailing": batch.batch(good, timestamp=now, raw=record(b"k", b"v", 0) + record(b"k", b"v", 1) + b"tail"),
        "null key and value": batch.batch([(None, None)], timestamp=now),
        "headers": batch.batch([(b"k", b"v", [("a", b"1"), ("a", b"2"), ("", None)])], timestamp=now),
    }
    # What Madang refuses and Kafka stores goes to a topic of its own, so that offsets stay comparable.
    elsewhere = t.topic("refused")
    for name, data in cases.items():
        t.produce(name, elsewhere if name == "record delta" else topic, data)
    read_back(t, topic)
    for name in ("crc", "count more", "good"):
        t.produce(f"v3 {name}", topic, cases[name], version=3)
        t.produce(f"v7 {name}", topic, cases[name], version=7)
    t.produce("zstd v6", topic, cases["zstd garbage"], version=6)


def timestamps(t):
    """CreateTime bounds and LogAppendTime."""
    topic, now = t.topic("times"), t.base_time
    for name, stamp in {"now": now, "past": 1000, "zero": 0, "no timestamp": -1, "in 30 min": now + 1800_000,
                        "in 2 h": now + 7200_000, "year 9999": 253370764800000}.items():
        t.produce(name, topic, batch.batch([(b"k", b"v")], timestamp=stamp))
    t.produce("negative", topic, batch.batch([(b"k", b"v")], timestamp=-5))
    t.produce("max below base", topic, batch.batch([(b"k", b"v")], base_timestamp=now, max_timestamp=now - 1000))
    t.produce("max above", topic, batch.batch([(b"k", b"v")], base_timestamp=now, max_timestamp=now + 1000))
    read_back(t, topic)
    bounded = t.topic("bounded", 1, [("message.timestamp.before.max.ms", "1000"), ("message.timestamp.after.max.ms", "1000")])
    t.produce("before bound", bounded, batch.batch([(b"k", b"v"), (b"k", b"w")], timestamp=now - 3600_000))
    t.produce("after bound", bounded, batch.batch([(b"k", b"v")], timestamp=now + 3600_000))


def places(t):
    """Topics and partitions that are not there, acks, and several partitions in one request."""
    topic, good = t.topic("places", 2), batch.batch([(b"k", b"v")], timestamp=t.base_time)
    topic_id = t.topic_id(topic)
    for acks in (-1, 1, 2, -2, 100):
        t.produce(f"acks {acks}", topic, good, acks=acks)
    for partition in (-1, 2, 2**31 - 1):
        t.produce(f"partition {partition}", topic, good, partition=partition)
    for name in ("", ".", "..", "a b", "x" * 250, "../../etc", t.name("absent")):
        t.produce(f"topic {name[:20]!r}", name, good)
    t.produce("internal", "__consumer_offsets", good)
    t.produce("by id", None, good, version=13, topic_id=topic_id)
    t.produce("zero id", None, good, version=13, topic_id="00" * 16)
    t.produce("unknown id", None, good, version=13, topic_id="5a" * 16)
    bad = batch.batch([(b"k", b"v")], timestamp=t.base_time, crc=1)
    t.send("mixed", "Produce", 9, {"Acks": -1, "TimeoutMs": 5000, "TopicData": [
        {"Name": topic, "PartitionData": [{"Index": 0, "Records": good}, {"Index": 1, "Records": bad}, {"Index": 9, "Records": good}]}]})
    t.send("twice", "Produce", 9, {"Acks": -1, "TimeoutMs": 5000, "TopicData": [
        {"Name": topic, "PartitionData": [{"Index": 0, "Records": good}, {"Index": 0, "Records": good}]}]})
    t.send("null records", "Produce", 9, {"Acks": -1, "TimeoutMs": 5000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": 0, "Records": None}]}]})
    t.send("no topics", "Produce", 9, {"Acks": -1, "TimeoutMs": 5000, "TopicData": []})
    read_back(t, topic)
    read_back(t, topic, 1, "read 1")
    t.start("Produce", 9, {"Acks": 0, "TimeoutMs": 5000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": 0, "Records": good}]}]})
    time.sleep(0.3)  # nobody has said when such a record can be read
    t.send("after acks 0", "ListOffsets", 7, {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}]})
    t.start("Produce", 9, {"Acks": 0, "TimeoutMs": 5000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": 9, "Records": good}]}]}, "zero")
    t.finish("acks 0 error", "Produce", 9, "zero", timeout=5)
    t.send("after error", "ApiVersions", 0, {}, "zero", quiet=True)


def sizes(t):
    """max.message.bytes, as created and as altered live."""
    topic = t.topic("sizes", 1, [("max.message.bytes", "1000")])
    for size in (100, 900, 930, 1000, 5000):
        t.produce(f"{size}", topic, batch.batch([(None, b"x" * size)], timestamp=t.base_time))
    t.produce("compressed", topic, batch.batch([(None, b"x" * 5000)], timestamp=t.base_time, codec="gzip"))
    t.send("alter", "IncrementalAlterConfigs", 1, {"Resources": [{"ResourceType": 2, "ResourceName": topic, "Configs": [
        {"Name": "max.message.bytes", "ConfigOperation": 0, "Value": "10000"}]}]})
    time.sleep(1)  # Kafka answers before its log has heard of the change
    t.produce("after", topic, batch.batch([(None, b"x" * 5000)], timestamp=t.base_time))
    compact = t.topic("compact", 1, [("cleanup.policy", "compact")])
    t.produce("keyless", compact, batch.batch([(b"k", b"v"), (None, b"v"), (None, b"w")], timestamp=t.base_time))
    t.produce("keyless v7", compact, batch.batch([(None, b"v")], timestamp=t.base_time), version=7)
    t.produce("tombstone", compact, batch.batch([(b"k", None)], timestamp=t.base_time))
    read_back(t, compact)


def idempotent(t):
    """Sequences: in order, repeated, gaps, old and new epochs, wrap, forgotten."""
    topic = t.topic("idem", 3)
    pid = t.send("init", "InitProducerId", 4, {"TransactionalId": None, "TransactionTimeoutMs": 60000})["ProducerId"]

    def put(label, sequence, epoch=0, partition=0, count=1, who=pid):
        data = batch.batch([(b"k", b"v")] * count, timestamp=t.base_time, pid=who, pid_epoch=epoch, sequence=sequence)
        t.produce(label, topic, data, partition=partition)

    for sequence in range(7):
        put(f"seq {sequence}", sequence)
    for sequence in (6, 2, 1, 0, 9, 5):
        put(f"again {sequence}", sequence)
    put("overlap", 6, count=3)
    put("next of two", 7, count=2)
    put("next of two again", 7, count=2)
    put("part of two", 8)
    put("epoch 1 not 0", 5, epoch=1)
    put("epoch 1", 0, epoch=1)
    put("old epoch", 9, epoch=0)
    put("unknown start 50", 50, partition=1)
    put("wrap a", 2**31 - 2, partition=2, count=2)
    put("wrap b", 0, partition=2)
    put("across the wrap", 2**31 - 1, partition=1, who=pid + 1000000, count=3)
    put("after it", 2, partition=1, who=pid + 1000000)
    put("epoch -1", 3, epoch=-1, partition=1)
    put("sequence -2", -2, partition=1)
    for partition in range(3):
        read_back(t, topic, partition, f"read {partition}")
    for body in ({"TransactionTimeoutMs": 0}, {"TransactionTimeoutMs": -1}, {"TransactionTimeoutMs": 2**31 - 1}, {"ProducerId": pid, "ProducerEpoch": 0},
                 {"ProducerId": 5, "ProducerEpoch": -1}, {"ProducerId": -1, "ProducerEpoch": 3}, {"TransactionalId": ""}):
        t.send(f"init {sorted(body.items())[0][0]} {list(body.values())[0] if 'ProducerId' not in body else 'id'}", "InitProducerId", 4,
               {"TransactionalId": None, "TransactionTimeoutMs": 60000, **body})


def stored(t, label, topic, count):
    """The header of each stored batch, without what a compressor chooses: `count` offsets are asked for, one after the other."""
    for offset in range(count):
        answer = t.send(label, "Fetch", 12, {"MaxWaitMs": 100, "SessionEpoch": -1, "Topics": [
            {"Topic": topic, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "FetchOffset": offset, "PartitionMaxBytes": 1}]}]}, quiet=True)
        part = answer["Responses"][0]["Partitions"][0]
        head = part["Records"] or b""
        found = {"base": int.from_bytes(head[:8], "big"), "attributes": int.from_bytes(head[21:23], "big"), "records": int.from_bytes(head[57:61], "big")} if head else None
        t.entries.append((f"{label} {offset}", None, None, {"error": part["ErrorCode"], "end": part["HighWatermark"], "batch": found}))


def segments(t):
    """Batches that their topic takes and its segment does not hold."""
    topic = t.topic("short", 1, [("segment.bytes", "1048576"), ("max.message.bytes", "3000000")])
    for size in (900_000, 1_048_000, 1_048_600, 1_200_000, 2_990_000, 3_100_000):
        t.produce(f"{size}", topic, batch.batch([(b"k", b"x" * size)], timestamp=t.base_time))
    t.produce("compressed", topic, batch.batch([(b"k", b"x" * 2_000_000)], timestamp=t.base_time, codec="gzip"))
    stored(t, "stored", topic, 4)


def recompressed(t):
    """Topics with a codec of their own: what is stored, and how large it may be as sent and as stored."""
    for kind in ("uncompressed", "gzip", "snappy", "lz4", "zstd"):
        topic = t.topic(kind, 1, [("compression.type", kind), ("max.message.bytes", "2000")])
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            t.produce(f"{kind} {codec}", topic, batch.batch([(b"k%d" % i, b"v" * 30) for i in range(10)], timestamp=t.base_time, codec=codec))
        t.produce(f"{kind} larger when stored", topic, batch.batch([(b"k", b"x" * 5000)], timestamp=t.base_time, codec="gzip"))
        t.produce(f"{kind} larger as sent", topic, batch.batch([(b"k", b"x" * 5000)], timestamp=t.base_time))
        stored(t, f"{kind} stored", topic, 52)


def in_sync(t):
    """More in-sync replicas asked for than there are replicas."""
    topic = t.topic("two", 1, [("min.insync.replicas", "2")])
    for acks in (1, -1):  # the first is readable once the second is acknowledged
        t.produce(f"acks {acks}", topic, batch.batch([(b"k", b"v")], timestamp=t.base_time), acks=acks)
    read_back(t, topic)


def impatient(t):
    """Requests that leave no time: what one replica does at once is done and answered."""
    topic = t.topic("hurried")
    for timeout in (0, -1, 1):
        for acks in (-1, 1):
            data = batch.batch([(b"k", b"v")], timestamp=t.base_time)
            t.send(f"acks {acks} in {timeout}", "Produce", 9, {"Acks": acks, "TimeoutMs": timeout, "TopicData": [{"Name": topic, "PartitionData": [{"Index": 0, "Records": data}]}]})
    for offset, timeout in ((1, 0), (2, -1)):
        t.send(f"delete records in {timeout}", "DeleteRecords", 2, {"TimeoutMs": timeout, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": offset}]}]})


def recompressed(t):
    """Every codec into every topic that has one of its own: all that is stored but the compressor's bytes, and so the batch's length."""
    for target in ("uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"):
        topic = t.topic(f"to-{target}", 1, [("compression.type", target)])
        for number, codec in enumerate(batch.CODECS):
            records = [(b"k%d" % index, b"v" * 90) for index in range(4)]
            raw = b"".join(record(key, value, index, index * 10) for index, (key, value) in enumerate(records))
            data = batch.batch(records, base_timestamp=t.base_time + number, max_timestamp=t.base_time + number + 30, attributes=batch.CODECS[codec], raw=batch.ENCODERS[codec](raw))
            t.produce(f"{codec} to {target}", topic, data)
        fetched = read_back(t, topic, quiet=True)
        stored = fetched["Responses"][0]["Partitions"][0]["Records"]
        for one in batch.parse(stored if isinstance(stored, bytes) else bytes.fromhex(stored)):
            compressed = one["Attributes"] & 7
            kept = {key: value for key, value in one.items() if not compressed or key not in ("Length", "Records", "Crc")}
            t.entries.append((f"stored {target}", None, None, kept))


SCENARIOS = [("impatient", impatient), ("recompressed", recompressed), ("wrong_batches", wrong_batches), ("timestamps", timestamps), ("places", places), ("sizes", sizes), ("idempotent", idempotent), ("segments", segments),
             ("recompressed", recompressed), ("in_sync", in_sync)]
