"""Fetch: ranges, epochs, limits, long polls, and the life of a fetch session."""

from wire import batch


def entry(topic, offset=0, partition=0, epoch=-1, limit=1 << 20, **more):
    return {"Topic": topic, "Partitions": [{"Partition": partition, "CurrentLeaderEpoch": epoch, "FetchOffset": offset, "PartitionMaxBytes": limit, **more}]}


def fetch(t, label, topics, version=12, wait=100, least=0, limit=1 << 20, session=0, epoch=-1, conn="main", **more):
    body = {"ReplicaId": -1, "MaxWaitMs": wait, "MinBytes": least, "MaxBytes": limit, "SessionId": session, "SessionEpoch": epoch, "Topics": topics, **more}
    return t.send(label, "Fetch", version, body, conn)


def ranges(t):
    """Offsets inside, at and outside the log; epochs; limits."""
    topic = t.topic("ranges", 2)
    t.fill(topic, 5)
    t.produce("many", topic, batch.batch([(b"%d" % i, b"v" * 50) for i in range(10)], timestamp=t.base_time), quiet=True)
    for offset in (0, 3, 5, 9, 14, 15, 16, 1000, -1, -5, 2**63 - 1):
        for version in (4, 11, 12, 16):
            if version < 13:
                fetch(t, f"offset {offset}", [entry(topic, offset)], version)
    for epoch in (-2, -1, 0, 1, 99):
        fetch(t, f"epoch {epoch}", [entry(topic, 1, epoch=epoch)])
    for last in (-1, 0, 5):
        fetch(t, f"last fetched {last}", [entry(topic, 2, LastFetchedEpoch=last)])
    for limit in (-1, 0, 1, 100, 2**31 - 1):
        fetch(t, f"partition limit {limit}", [entry(topic, 0, limit=limit)])
        fetch(t, f"limit {limit}", [entry(topic)], limit=limit)
    for partition in (-1, 2, 2**31 - 1):
        fetch(t, f"partition {partition}", [entry(topic, partition=partition)])
    for name in ("", ".", "x" * 250, t.name("absent")):
        fetch(t, f"topic {name[:10]!r}", [entry(name)])
    fetch(t, "twice", [entry(topic), entry(topic)])
    fetch(t, "read committed", [entry(topic)], IsolationLevel=1)
    fetch(t, "isolation 7", [entry(topic)], IsolationLevel=7)
    fetch(t, "rack", [entry(topic)], RackId="nowhere")
    fetch(t, "nothing", [])


def by_id(t):
    """Topic ids: known, zero, unknown, deleted and made again."""
    topic = t.topic("byid")
    t.fill(topic, 2)
    first = t.topic_id(topic)

    def one(topic_id, offset=0):
        item = entry(None, offset)
        del item["Topic"]
        return [{**item, "TopicId": topic_id}]

    for version in (13, 15, 17, 18):
        for name, topic_id in (("known", first), ("zero", "00" * 16), ("unknown", "7b" * 16)):
            fetch(t, name, one(topic_id), version) if version < 15 else t.send(name, "Fetch", version, {
                "MaxWaitMs": 100, "MaxBytes": 1 << 20, "SessionEpoch": -1, "Topics": one(topic_id)})
    t.send("delete", "DeleteTopics", 5, {"TopicNames": [topic], "TimeoutMs": 5000})
    for _ in range(50):
        if t.send("gone", "Metadata", 9, {"Topics": [{"Name": topic}], "AllowAutoTopicCreation": False}, quiet=True)["Topics"][0]["ErrorCode"] == 3:
            break
    t.topic("byid")
    second = t.topic_id(topic)
    t.entries.append(("recreated", None, None, {"another id": first != second}))
    fetch(t, "old id", one(first), 13)
    fetch(t, "new id", one(second), 13)


def sessions(t):
    """A session's life: full, incremental, forgotten, wrong epochs and ids."""
    topic = t.topic("session", 3)
    t.fill(topic, 2)
    opened = fetch(t, "open", [entry(topic), entry(topic, partition=1)], epoch=0)
    sid = opened.get("SessionId", 0)
    fetch(t, "same again", [], session=sid, epoch=1)
    fetch(t, "moved", [entry(topic, 2)], session=sid, epoch=2)
    fetch(t, "nothing new", [], session=sid, epoch=3)
    t.fill(topic, 1, partition=1)
    fetch(t, "news", [], session=sid, epoch=4)
    fetch(t, "add", [entry(topic, partition=2)], session=sid, epoch=5)
    fetch(t, "forget", [], session=sid, epoch=6, ForgottenTopicsData=[{"Topic": topic, "Partitions": [1]}])
    t.fill(topic, 1, partition=1)
    fetch(t, "forgotten is silent", [], session=sid, epoch=7)
    fetch(t, "bad partition", [entry(topic, partition=9)], session=sid, epoch=8)
    fetch(t, "error is repeated", [], session=sid, epoch=9)
    fetch(t, "epoch behind", [], session=sid, epoch=3)
    fetch(t, "epoch ahead", [], session=sid, epoch=40)
    fetch(t, "unknown id", [], session=sid ^ 0x5A5A5A if sid else 77, epoch=1)
    fetch(t, "epoch -5", [entry(topic)], session=sid, epoch=-5)
    fetch(t, "another connection", [], session=sid, epoch=10, conn="other")
    fetch(t, "close", [entry(topic)], session=sid, epoch=-1)
    fetch(t, "closed", [], session=sid, epoch=11)
    fetch(t, "id without epoch", [entry(topic)], session=12345, epoch=0)
    again = fetch(t, "open empty", [], epoch=0)
    fetch(t, "empty goes on", [], session=again.get("SessionId", 0), epoch=1)


def session_changes(t):
    """What a session holds changes: topics come and go, partitions are forgotten and added at once, the session is replaced."""
    topic, later = t.topic("held", 3), t.name("later")
    t.fill(topic, 2)
    sid = fetch(t, "open with an absent topic", [entry(topic), entry(later)], epoch=0).get("SessionId", 0)
    fetch(t, "still absent", [], session=sid, epoch=1)
    t.topic("later")
    t.fill(later, 1)
    fetch(t, "it has come", [], session=sid, epoch=2)
    fetch(t, "forgotten and added", [entry(later, 1)], session=sid, epoch=3, ForgottenTopicsData=[{"Topic": later, "Partitions": [0]}])
    fetch(t, "forgotten that was never held", [], session=sid, epoch=4, ForgottenTopicsData=[{"Topic": topic, "Partitions": [2, 9]}, {"Topic": t.name("never"), "Partitions": [0]}])
    fetch(t, "twice in one request", [entry(topic, 2, partition=1), entry(topic, 0, partition=1)], session=sid, epoch=5)
    fetch(t, "out of range", [entry(topic, 99)], session=sid, epoch=6)
    fetch(t, "out of range again", [], session=sid, epoch=7)
    fetch(t, "stale leader epoch", [entry(topic, 0, epoch=7)], session=sid, epoch=8)
    t.send("delete", "DeleteTopics", 5, {"TopicNames": [later], "TimeoutMs": 5000})
    for _ in range(50):
        if t.send("gone", "Metadata", 9, {"Topics": [{"Name": later}], "AllowAutoTopicCreation": False}, quiet=True)["Topics"][0]["ErrorCode"] == 3:
            break
    fetch(t, "its topic has gone", [entry(topic, 2)], session=sid, epoch=9)
    second = fetch(t, "replaced", [entry(topic, 1)], session=sid, epoch=0).get("SessionId", 0)
    t.entries.append(("replaced by another", None, None, {"another": second not in (0, sid)}))
    fetch(t, "the old one", [], session=sid, epoch=10)
    fetch(t, "the new one", [], session=second, epoch=1)
    for version in (7, 11, 16):
        fetch(t, "wrong epoch", [], version if version < 13 else 12, session=second, epoch=30)
        fetch(t, "no such session", [], version if version < 13 else 12, session=second ^ 0x33333, epoch=1)


def mixed_session(t):
    """A session that begins by name and goes on by id, and one whose id is wrong."""
    topic = t.topic("mixed")
    t.fill(topic, 1)
    topic_id = t.topic_id(topic)
    by_name = fetch(t, "by name", [entry(topic)], epoch=0).get("SessionId", 0)
    item = {"TopicId": topic_id, "Partitions": entry(topic)["Partitions"]}
    fetch(t, "then by id", [item], 13, session=by_name, epoch=1)
    by_number = fetch(t, "by id", [item], 13, epoch=0).get("SessionId", 0)
    fetch(t, "then by name", [entry(topic)], 12, session=by_number, epoch=1)
    odd = fetch(t, "unknown id opens", [{**item, "TopicId": "7c" * 16}], 13, epoch=0).get("SessionId", 0)
    fetch(t, "unknown id goes on", [], 13, session=odd, epoch=1)


def waiting(t):
    """Long polls: data wakes them, min_bytes holds them, errors do not wait."""
    topic = t.topic("waiting", 2)
    body = {"ReplicaId": -1, "MaxWaitMs": 8000, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionEpoch": -1, "Topics": [entry(topic)]}
    t.start("Fetch", 12, body, "poll")
    t.fill(topic, 1)
    t.finish("woken", "Fetch", 12, "poll")
    fetch(t, "min bytes never come", [entry(topic, 1)], wait=300, least=100000)
    fetch(t, "an error does not wait", [entry(topic, 99)], wait=10000, least=1)
    fetch(t, "unknown does not wait", [entry(t.name("absent"))], wait=10000, least=1)
    fetch(t, "no partitions do not wait", [], wait=10000, least=1)
    fetch(t, "wait 0", [entry(topic, 1)], wait=0, least=100)
    fetch(t, "wait -1", [entry(topic, 1)], wait=-1, least=100)
    fetch(t, "min bytes -1", [entry(topic, 1)], wait=10000, least=-1)
    t.start("Fetch", 12, body | {"Topics": [entry(topic, 1)], "MaxWaitMs": 500}, "order")
    t.start("ApiVersions", 0, {}, "order")
    t.finish("first the fetch", "Fetch", 12, "order")
    t.finish("then the next", "ApiVersions", 0, "order", quiet=True)


def first_batch(t):
    """At least one whole batch comes back, whatever the limits; then the limits hold."""
    topic = t.topic("first", 3)
    for partition in (0, 1, 2):
        for _ in range(3):
            t.produce("x", topic, batch.batch([(b"k", b"x" * 1000)], timestamp=t.base_time), partition=partition, quiet=True)
    for limit in (1, 500, 1100, 1500, 3000):
        fetch(t, f"limit {limit}", [entry(topic, limit=100000, partition=p) for p in (0, 1, 2)], limit=limit)
        fetch(t, f"each {limit}", [entry(topic, limit=limit, partition=p) for p in (2, 1, 0)])


SCENARIOS = [("ranges", ranges), ("by_id", by_id), ("sessions", sessions), ("session_changes", session_changes), ("mixed_session", mixed_session), ("waiting", waiting), ("first_batch", first_batch)]
