"""ListOffsets' special values, offsets by time, DeleteRecords, OffsetForLeaderEpoch."""

from wire import batch


def listed(t, label, topic, stamp, version=7, partition=0, epoch=-1, isolation=0):
    t.send(label, "ListOffsets", version, {"ReplicaId": -1, "IsolationLevel": isolation, "Topics": [
        {"Name": topic, "Partitions": [{"PartitionIndex": partition, "CurrentLeaderEpoch": epoch, "Timestamp": stamp}]}]})


def special(t):
    """Every special timestamp at every version, on an empty and on a filled log."""
    empty, full, now = t.topic("empty"), t.topic("full"), t.base_time
    t.fill(full, 4)
    for topic, name in ((empty, "empty"), (full, "full")):
        for version in range(1, 11):
            for stamp in (-1, -2, -3, -4, -5, -6, -7, -100):
                listed(t, f"{name} {stamp}", topic, stamp, version)
    for delta in (-1000, 0, 1, 999, 1000, 1500, 3000, 3001, 10**9):
        listed(t, f"time {delta}", full, now + delta)
        listed(t, f"committed {delta}", full, now + delta, isolation=1)
    listed(t, "time 0", full, 0)
    listed(t, "time max", full, 2**63 - 1)


def inside_batches(t):
    """A timestamp points at a record, not at its batch; the largest timestamp need not be last."""
    topic, now = t.topic("inside"), t.base_time
    parts = [batch.record(b"k", b"v", i, delta) for i, delta in enumerate((0, 500, 2000, 100))]
    t.produce("four", topic, batch.batch([0] * 4, raw=b"".join(parts), base_timestamp=now, max_timestamp=now + 2000))
    t.produce("one", topic, batch.batch([(b"k", b"late")], timestamp=now + 1000))
    for stamp in (now, now + 1, now + 500, now + 501, now + 2000, now + 2001, -3):
        listed(t, f"at {stamp - now if stamp > 0 else stamp}", topic, stamp)
    stamped = t.topic("stamped", 1, [("message.timestamp.type", "LogAppendTime")])
    answer = t.produce("append time", stamped, batch.batch([(b"k", b"v")], timestamp=5), quiet=True)
    part = answer["Responses"][0]["PartitionResponses"][0]
    t.entries.append(("append time", None, None, {"error": part["ErrorCode"], "set": part["LogAppendTimeMs"] >= now}))


def wrong(t):
    """Unknown places, epochs, the same partition twice."""
    topic = t.topic("wrong", 2)
    for partition in (-1, 2, 2**31 - 1):
        listed(t, f"partition {partition}", topic, -1, partition=partition)
    for name in ("", ".", t.name("absent"), "x" * 250):
        listed(t, f"topic {name[:8]!r}", name, -1)
    for epoch in (-2, 0, 1, 50):
        listed(t, f"epoch {epoch}", topic, -1, epoch=epoch)
    t.send("twice", "ListOffsets", 7, {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [
        {"PartitionIndex": 0, "Timestamp": -1, "CurrentLeaderEpoch": -1}, {"PartitionIndex": 0, "Timestamp": -2, "CurrentLeaderEpoch": -1}]}]})
    listed(t, "isolation 9", topic, -1, isolation=9)


def delete_records(t):
    """The low watermark moves at once for Fetch and ListOffsets, and never back."""
    topic = t.topic("cut", 2)
    t.fill(topic, 6)
    for offset in (2, 1, 0, 6, 7, -1, -2, 100):
        t.send(f"to {offset}", "DeleteRecords", 2, {"TimeoutMs": 5000, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": offset}]}]})
        listed(t, f"earliest after {offset}", topic, -2)
    for offset in (0, 5, 6):
        t.send(f"fetch {offset}", "Fetch", 12, {"MaxWaitMs": 50, "SessionEpoch": -1, "Topics": [{"Topic": topic, "Partitions": [
            {"Partition": 0, "CurrentLeaderEpoch": -1, "FetchOffset": offset, "PartitionMaxBytes": 100000}]}]})
    listed(t, "by time", topic, t.base_time)
    t.fill(topic, 1)
    listed(t, "latest", topic, -1)
    compact = t.topic("kept", 1, [("cleanup.policy", "compact")])
    t.fill(compact, 2)
    t.send("compacted", "DeleteRecords", 2, {"TimeoutMs": 5000, "Topics": [{"Name": compact, "Partitions": [{"PartitionIndex": 0, "Offset": 1}]}]})
    t.send("unknown", "DeleteRecords", 2, {"TimeoutMs": 5000, "Topics": [{"Name": t.name("absent"), "Partitions": [{"PartitionIndex": 0, "Offset": 1}]}]})
    t.send("internal", "DeleteRecords", 2, {"TimeoutMs": 5000, "Topics": [{"Name": "__consumer_offsets", "Partitions": [{"PartitionIndex": 0, "Offset": 0}]}]})


def leader_epochs(t):
    """OffsetForLeaderEpoch: known, older, newer, undefined."""
    topic = t.topic("epochs")
    t.fill(topic, 3)
    for current in (-1, 0, 5):
        for epoch in (-1, 0, 1, 99, -5):
            t.send(f"{current} {epoch}", "OffsetForLeaderEpoch", 4, {"ReplicaId": -1, "Topics": [
                {"Topic": topic, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": current, "LeaderEpoch": epoch}]}]})
    for name, partition in ((topic, 7), (topic, -1), (t.name("absent"), 0)):
        t.send(f"{partition}", "OffsetForLeaderEpoch", 3, {"ReplicaId": -1, "Topics": [
            {"Topic": name, "Partitions": [{"Partition": partition, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}]}]})


def append_times(t):
    """The broker's own times: the highest of them, and that they are set in every codec."""
    topic = t.topic("appended", 1, [("message.timestamp.type", "LogAppendTime")])
    for codec in ("none", "gzip", "zstd"):
        answer = t.produce(codec, topic, batch.batch([(b"k", b"v")] * 3, timestamp=5, codec=codec), quiet=True)
        t.entries.append((codec, None, None, {"set": answer["Responses"][0]["PartitionResponses"][0]["LogAppendTimeMs"] >= t.base_time}))
    answer = t.send("highest", "ListOffsets", 7, {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [
        {"PartitionIndex": 0, "CurrentLeaderEpoch": -1, "Timestamp": -3}]}]}, quiet=True)
    part = answer["Topics"][0]["Partitions"][0]
    t.entries.append(("highest", None, None, {"error": part["ErrorCode"], "offset": part["Offset"], "set": part["Timestamp"] >= t.base_time}))
    for stamp in (0, 5, t.base_time - 1):
        answer = t.send("time", "ListOffsets", 7, {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "CurrentLeaderEpoch": -1, "Timestamp": stamp}]}]}, quiet=True)
        t.entries.append(("by time", None, None, {"offset": answer["Topics"][0]["Partitions"][0]["Offset"]}))


def cut_inside(t):
    """Times in compressed batches, and a log that is cut inside one. The highest time is not asked for then: Kafka still answers that of
    a record that was deleted, Madang that of one that is left."""
    for codec in ("none", "gzip", "lz4", "snappy", "zstd"):
        topic, now = t.topic(codec), t.base_time
        records = b"".join(batch.record(b"k", b"v", i, delta) for i, delta in enumerate((0, 700, 300, 900, 100)))
        t.produce("five", topic, batch.batch([0] * 5, raw=batch.ENCODERS[codec](records), attributes=batch.CODECS[codec], base_timestamp=now, max_timestamp=now + 900))
        listed(t, f"{codec} highest", topic, -3)
        for delta in (0, 1, 300, 701, 900, 901):
            listed(t, f"{codec} at {delta}", topic, now + delta)
        for cut in (4, -1):
            t.send("cut", "DeleteRecords", 2, {"TimeoutMs": 5000, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": cut}]}]})
            for stamp in (-1, -2, -4, -5, now, now + 100, now + 701):
                listed(t, f"{codec} cut at {cut}, {stamp if stamp < 0 else stamp - now}", topic, stamp, 9)


SCENARIOS = [("special", special), ("inside_batches", inside_batches), ("append_times", append_times), ("cut_inside", cut_inside), ("wrong", wrong), ("delete_records", delete_records), ("leader_epochs", leader_epochs)]
