"""Batches to the byte: streams that are cut, longer or wrong, times out of the ordinary, what is stored of them and what a Fetch returns."""

from wire import batch
from wire.batch import ENCODERS, record

GOOD = [(b"k", b"v" * 20), (b"k2", b"v2")]
PLAIN = b"".join(record(key, value, index) for index, (key, value) in enumerate(GOOD))


def read_back(t, topic, label="read", version=12, **more):
    place = {"Topic": topic} if version < 13 else {"TopicId": t.topic_id(topic)}
    t.send(label, "Fetch", version, {"ReplicaId": -1, "MaxWaitMs": 100, "MaxBytes": 1 << 22, "SessionEpoch": -1, "Topics": [
        {**place, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "PartitionMaxBytes": 1 << 22}]}], **more})


def streams(codec):
    """A scenario: streams of one codec, sound and not."""
    encode = ENCODERS[codec]

    def scenario(t):
        # What Madang refuses for its readers' sake and Kafka stores goes to a topic of its own, so that offsets stay comparable.
        topic, elsewhere, now = t.topic(codec), t.topic("refused"), t.base_time

        def put(label, raw, place=topic, **more):
            t.produce(label, place, batch.batch(GOOD, timestamp=now, attributes=batch.CODECS[codec], raw=raw, **more))

        whole = encode(PLAIN)
        put("whole", whole)
        for count in (1, 4, 8, 10):
            put(f"cut {count}", whole[:-count])
        for count in (0, 1, 4, 5, 7, 10, 16, 20):
            put(f"only {count}", whole[:count])
        changed = [len(whole) // 2, len(whole) - 1] + ([] if codec == "snappy" else [4]) + ([] if codec == "gzip" else [8, 12])
        for at in changed:
            put(f"changed at {at}", whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        put("records and a tail", encode(PLAIN + b"tail"))
        put("records cut", encode(PLAIN[:-1]))
        put("no records", encode(b""))
        put("count more", whole, count=3, last_delta=2)
        put("count less", whole, count=1, last_delta=0)
        put("deltas 0 7", encode(record(b"k", b"v", 0) + record(b"k", b"v", 7)))
        put("deltas 1 0", encode(record(b"k", b"v", 1) + record(b"k", b"v", 0)))
        put("unreadable: a record's length", encode(record(b"k", b"v", 0) + record(b"k", b"v", 1, length=99)), elsewhere)
        put("unreadable: a byte after", whole + b"\0", elsewhere)
        put("unreadable: bytes after", whole + b"tail-tail", elsewhere)
        put("unreadable: twice", whole + whole, elsewhere)
        put("unreadable: two streams", encode(PLAIN[:20]) + encode(PLAIN[20:]), elsewhere)
        read_back(t, topic)

    return scenario


def order_of_errors(t):
    """Of two things that are wrong, the one that Kafka names."""
    topic, now = t.topic("order", 1, [("max.message.bytes", "500")]), t.base_time
    for version in (3, 6, 7, 9, 12):
        for label, over in {"codec 5": {}, "codec 5, crc": {"crc": 1}, "codec 5, base offset": {"base_offset": 7}, "codec 5, count": {"count": 3},
                            "codec 5, control": {"attributes": 37}, "codec 5, sequence": {"pid": 5, "pid_epoch": 0}}.items():
            t.produce(label, topic, batch.batch(GOOD, timestamp=now, **{"attributes": 5, **over}), version=version)
    large = [(b"k", b"v" * 1000)]
    for label, over in {"large, crc": {"crc": 1}, "large, base offset": {"base_offset": 1}, "large, codec 7": {"attributes": 7}, "large, count": {"count": 2}}.items():
        t.produce(label, topic, batch.batch(large, timestamp=now, **over))
    for label, over in {"crc, base offset": {"crc": 1, "base_offset": 1}, "crc, count": {"crc": 1, "count": 9}, "count, control": {"count": 9, "attributes": 32},
                        "far, count": {"count": 9, "base_timestamp": now + 10**10}}.items():
        t.produce(label, topic, batch.batch(GOOD, timestamp=now, **over))
    t.produce("garbage of an old epoch", topic, batch.batch(GOOD, timestamp=now, attributes=1, raw=b"nonsense", pid=5, pid_epoch=-1, sequence=0))
    t.produce("two zstd v6", topic, batch.batch(GOOD, timestamp=now, codec="zstd") * 2, version=6)
    read_back(t, topic)


def attributes(t):
    """Attribute bits that a client has no business to set, and what is stored of them."""
    topic, anew, now = t.topic("bits"), t.topic("anew", 1, [("compression.type", "gzip")]), t.base_time
    for bits in (8, 64, 72, 128, 256, 0x4000, -32768):
        t.produce(f"bits {bits}", topic, batch.batch(GOOD, timestamp=now, attributes=bits))
    t.produce("horizon 5", topic, batch.batch(GOOD, timestamp=5, attributes=64))
    t.produce("horizon far", topic, batch.batch(GOOD, timestamp=now + 10**10, attributes=64))
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        t.produce(f"horizon {codec}", topic, batch.batch(GOOD, timestamp=now, attributes=64 | batch.CODECS[codec], raw=ENCODERS[codec](PLAIN)))
    read_back(t, topic)
    for bits in (64, 128, 5):
        t.produce(f"anew {bits}", anew, batch.batch(GOOD, timestamp=now, attributes=bits))


def times(t):
    """Times before 1970, at the ends of 64 bits, and in records alone."""
    topic, now = t.topic("early"), t.base_time
    for stamp in (-1, -2, -5, -(10**12), 0, 1, 2**63 - 1, -(2**63), -(2**63) + 1, now + 3600_000 - 60_000, now + 3600_000 + 60_000):
        t.produce(f"at {stamp - now if stamp > now // 2 and stamp < 2**62 else stamp}", topic, batch.batch(GOOD, timestamp=stamp))
    one = [(b"k", b"v")]
    t.produce("base at the end", topic, batch.batch(one, base_timestamp=2**63 - 1, max_timestamp=now, raw=record(b"k", b"v", 0, now - (2**63 - 1))))
    t.produce("beyond the end", topic, batch.batch(one, base_timestamp=2**63 - 1, max_timestamp=now, raw=record(b"k", b"v", 0, 5)))
    t.produce("one early", topic, batch.batch(GOOD, timestamp=now, raw=record(b"k", b"v", 0, -now - 10) + record(b"k", b"v", 1)))
    t.produce("one far", topic, batch.batch(GOOD, timestamp=now, raw=record(b"k", b"v", 0, 10**10) + record(b"k", b"v", 1)))
    read_back(t, topic)
    for stamp in (-3, 0, 1, now):
        t.send(f"offset at {stamp if stamp < 2 else 'now'}", "ListOffsets", 7, {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [
            {"PartitionIndex": 0, "CurrentLeaderEpoch": -1, "Timestamp": stamp}]}]})
    none = t.topic("none")
    t.produce("early alone", none, batch.batch(one, timestamp=-7))
    for stamp in (-3, 0):
        t.send(f"alone at {stamp}", "ListOffsets", 7, {"ReplicaId": -1, "Topics": [{"Name": none, "Partitions": [
            {"PartitionIndex": 0, "CurrentLeaderEpoch": -1, "Timestamp": stamp}]}]})
    anew = t.topic("anew", 1, [("compression.type", "zstd")])
    for stamp in (-9, -1, 0):
        t.produce(f"anew at {stamp}", anew, batch.batch(one, timestamp=stamp))
    appended = t.topic("appended", 1, [("message.timestamp.type", "LogAppendTime")])
    for stamp in (-77, 2**62, -(2**63)):
        answer = t.produce("appended", appended, batch.batch(one, timestamp=stamp), quiet=True)
        part = answer["Responses"][0]["PartitionResponses"][0]
        t.entries.append((f"appended {stamp}", None, None, {"error": part["ErrorCode"], "offset": part["BaseOffset"]}))
    compacted = t.topic("compacted", 1, [("cleanup.policy", "compact")])
    t.produce("far and keyless", compacted, batch.batch([(b"k", b"v"), (None, b"v")], timestamp=now + 10**10))


def old_readers(t):
    """Every codec at every version of Fetch. Kafka 4 keeps nothing back from a client that cannot know zstd."""
    for codec in ENCODERS:
        topic = t.topic(f"of-{codec}")
        t.produce("written", topic, batch.batch(GOOD, timestamp=t.base_time, codec=codec))
        for version in (4, 9, 10, 11, 12, 13, 18):
            read_back(t, topic, f"{codec} read", version)
    t.produce("zstd v6", topic, batch.batch(GOOD, timestamp=t.base_time, codec="zstd"), version=6)
    t.produce("zstd v7", topic, batch.batch(GOOD, timestamp=t.base_time, codec="zstd"), version=7)


SCENARIOS = [(f"streams_{codec}", streams(codec)) for codec in ("gzip", "snappy", "lz4", "zstd")] + [
    ("order_of_errors", order_of_errors), ("attributes", attributes), ("times", times), ("old_readers", old_readers)]
