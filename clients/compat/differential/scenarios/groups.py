"""Classic groups: joining, syncing, committing, leaving, and every refusal on the way."""

# Subscriptions to no topic with some user data: of other bytes Kafka never ends the rebalance of a consumer group.
PROTOCOLS = [{"Name": "range", "Metadata": b"\0\0\0\0\0\0\0\0\0\5range"}, {"Name": "roundrobin", "Metadata": b"\0\0\0\0\0\0\0\0\0\2rr"}]


def subscription(*topics):
    """Consumer protocol metadata, version 0."""
    out = b"\0\0" + len(topics).to_bytes(4, "big")
    for topic in topics:
        out += len(topic).to_bytes(2, "big") + topic.encode()
    return out + b"\0\0\0\0"


def join(t, label, group, member="", version=5, conn="main", start=False, quiet=False, **more):
    body = {"GroupId": group, "SessionTimeoutMs": 10000, "RebalanceTimeoutMs": 6000, "MemberId": member, "ProtocolType": "consumer", "Protocols": PROTOCOLS, **more}
    if start:
        return t.start("JoinGroup", version, body, conn)
    return t.send(label, "JoinGroup", version, body, conn, quiet=quiet)


def sync(t, label, group, member, generation, assignments=(), version=3, conn="main", **more):
    return t.send(label, "SyncGroup", version, {"GroupId": group, "GenerationId": generation, "MemberId": member, "Assignments": [
        {"MemberId": m, "Assignment": a} for m, a in assignments], **more}, conn)


def beat(t, label, group, member, generation, **more):
    return t.send(label, "Heartbeat", 3, {"GroupId": group, "GenerationId": generation, "MemberId": member, **more})


def describe(t, label, group, version=5):
    return t.send(label, "DescribeGroups", version, {"Groups": [group]})


def commit(t, label, group, topic, offset=1, member="", generation=-1, version=8, partition=0, metadata="", epoch=-1, **more):
    return t.send(label, "OffsetCommit", version, {"GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": member, "Topics": [
        {"Name": topic, "Partitions": [{"PartitionIndex": partition, "CommittedOffset": offset, "CommittedLeaderEpoch": epoch, "CommittedMetadata": metadata}]}], **more})


def fetched(t, label, group, topics=None, version=7):
    body = {"GroupId": group, "Topics": topics} if version < 8 else {"Groups": [{"GroupId": group, "Topics": topics}]}
    return t.send(label, "OffsetFetch", version, body)


def member_of(t, group, conn="main", **more):
    """Joins as the only member; returns (member id, generation)."""
    first = join(t, "ask", group, conn=conn, quiet=True, **more)
    answer = join(t, "join", group, first["MemberId"], conn=conn, **more)
    return answer["MemberId"], answer["GenerationId"]


def shard_of(group, shards=50):
    """The partition of __consumer_offsets that a group is in: Java's hash of its name."""
    value = 0
    for letter in group:
        value = (31 * value + ord(letter)) & 0xFFFFFFFF
    return abs(value - (1 << 32) if value >> 31 else value) % shards


def neighbour_of(t, group):
    """The name of another group in the same shard."""
    names = (t.name(f"near-{number}") for number in range(10000))
    return next(name for name in names if shard_of(name) == shard_of(group))


def alone(t):
    """One member's whole life."""
    topic, group = t.topic("alone"), t.name("g")
    t.coordinator(group)
    describe(t, "before", group)
    describe(t, "before", group, 6)
    first = join(t, "member id required", group)
    # A pending member is in no record: Kafka describes a group as of its shard's last committed record, whoever wrote it.
    t.send("a neighbour commits", "OffsetCommit", 8, {"GroupId": neighbour_of(t, group), "GenerationIdOrMemberEpoch": -1, "MemberId": "", "Topics": [
        {"Name": topic, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 1, "CommittedLeaderEpoch": -1, "CommittedMetadata": ""}]}]})
    describe(t, "pending", group)
    member = first["MemberId"]
    joined = join(t, "join", group, member)
    generation = joined["GenerationId"]
    describe(t, "completing", group)
    beat(t, "beat in completing", group, member, generation)
    commit(t, "commit in completing", group, topic, member=member, generation=generation)
    sync(t, "sync", group, member, generation, [(member, b"\0\0mine")])
    sync(t, "sync again", group, member, generation, [(member, b"other")])
    describe(t, "stable", group)
    t.send("list", "ListGroups", 5, {})
    t.send("list stable", "ListGroups", 5, {"StatesFilter": ["Stable"]})
    t.send("list empty", "ListGroups", 5, {"StatesFilter": ["Empty"], "TypesFilter": ["classic"]})
    t.send("list consumer", "ListGroups", 5, {"TypesFilter": ["consumer"]})
    t.send("list nonsense", "ListGroups", 5, {"StatesFilter": ["nonsense"], "TypesFilter": ["nonsense"]})
    for version in (5, 9):
        sync(t, "wrong type", group, member, generation, version=5, ProtocolType="connect", ProtocolName="range")
        sync(t, "wrong name", group, member, generation, version=5, ProtocolType="consumer", ProtocolName="sticky")
    for wrong in (-1, generation - 1, generation + 1, 2**31 - 1):
        beat(t, f"beat {wrong}", group, member, wrong)
        sync(t, f"sync {wrong}", group, member, wrong)
        commit(t, f"commit {wrong}", group, topic, member=member, generation=wrong)
    for who in ("", "stranger"):
        beat(t, f"beat as {who!r}", group, who, generation)
        sync(t, f"sync as {who!r}", group, who, generation)
        commit(t, f"commit as {who!r}", group, topic, member=who, generation=generation)
    commit(t, "commit", group, topic, 5, member, generation, metadata="hello")
    fetched(t, "fetch", group)
    t.send("delete alive", "DeleteGroups", 2, {"GroupsNames": [group]})
    join(t, "rejoin as leader", group, member)
    sync(t, "sync 2", group, member, generation + 1, [(member, b"again")])
    t.send("leave stranger", "LeaveGroup", 2, {"GroupId": group, "MemberId": "stranger"})
    t.send("leave", "LeaveGroup", 4, {"GroupId": group, "Members": [{"MemberId": member}, {"MemberId": "stranger"}]})
    describe(t, "empty", group)
    beat(t, "beat after", group, member, generation + 1)
    join(t, "old member", group, member)
    t.send("delete", "DeleteGroups", 2, {"GroupsNames": [group, group, t.name("none"), ""]})
    describe(t, "dead", group)
    fetched(t, "fetch after", group)


def refusals(t):
    """Joins that are turned away."""
    group = t.name("g")
    t.coordinator(group)
    for timeout in (-1, 0, 5999, 6000, 1800000, 1800001, 2**31 - 1):
        join(t, f"session {timeout}", f"{group}{timeout}", SessionTimeoutMs=timeout)
    for name, more in {"no protocols": {"Protocols": []}, "no type": {"ProtocolType": ""}, "stranger": {"MemberId": "stranger"},
                       "rebalance -1": {"RebalanceTimeoutMs": -1}, "rebalance 0": {"RebalanceTimeoutMs": 0}, "empty group": {"GroupId": ""}}.items():
        join(t, name, f"{group}-{name}", **more)
    for version in (0, 3, 4, 9):
        join(t, "first", f"{group}-v{version}", version=version)
        describe(t, f"after v{version}", f"{group}-v{version}")
    member, generation = member_of(t, group)
    sync(t, "sync", group, member, generation, [(member, b"x")])
    join(t, "other protocol", group, conn="two", Protocols=[{"Name": "sticky", "Metadata": b""}])
    join(t, "other type", group, conn="two", ProtocolType="connect")
    join(t, "stranger to a group", group, "stranger", conn="two")
    for api, body in {"Heartbeat": {"GenerationId": 1, "MemberId": "m"}, "SyncGroup": {"GenerationId": 1, "MemberId": "m"}, "LeaveGroup": {"Members": [{"MemberId": "m"}]}}.items():
        for name in ("", t.name("unknown")):
            t.send(f"{api} of {name[-7:]!r}", api, 4, {"GroupId": name, **body})


def two(t):
    """A second member comes and goes: rebalances, parked syncs, a leader that hands out assignments."""
    group = t.name("g")
    t.coordinator(group)
    one, generation = member_of(t, group)
    sync(t, "sync", group, one, generation, [(one, b"all")])
    other = join(t, "other asks", group, conn="two")["MemberId"]
    join(t, "", group, other, conn="two", start=True)
    for _ in range(100):
        if t.send("beat", "Heartbeat", 3, {"GroupId": group, "GenerationId": generation, "MemberId": one}, quiet=True)["ErrorCode"] == 27:
            break
    beat(t, "rebalancing", group, one, generation)
    describe(t, "preparing", group)
    sync(t, "sync while preparing", group, one, generation)
    join(t, "leader rejoins", group, one)
    t.finish("other joined", "JoinGroup", 5, "two")
    generation += 1
    t.start("SyncGroup", 3, {"GroupId": group, "GenerationId": generation, "MemberId": other, "Assignments": [{"MemberId": one, "Assignment": b"stolen"}]}, "two")
    sync(t, "leader syncs", group, one, generation, [(one, b"half"), (other, b"rest"), ("stranger", b"none")])
    t.finish("other synced", "SyncGroup", 3, "two")
    describe(t, "stable", group)
    join(t, "follower, nothing changed", group, other, conn="two")
    join(t, "", group, other, conn="two", start=True, Protocols=PROTOCOLS[:1])
    for _ in range(100):
        if t.send("beat", "Heartbeat", 3, {"GroupId": group, "GenerationId": generation, "MemberId": one}, quiet=True)["ErrorCode"] == 27:
            break
    join(t, "leader rejoins again", group, one)
    t.finish("changed follower", "JoinGroup", 5, "two")
    generation += 1
    sync(t, "one left out", group, one, generation, [(one, b"all")])
    sync(t, "empty assignment", group, other, generation, conn="two")
    t.send("follower leaves", "LeaveGroup", 4, {"GroupId": group, "Members": [{"MemberId": other}]}, "two")
    beat(t, "leader hears", group, one, generation)
    join(t, "leader alone", group, one)


def commits(t):
    """Simple consumers, metadata and epochs that round-trip, deletion of offsets."""
    topic, group = t.topic("commits", 3), t.name("g")
    t.coordinator(group)
    commit(t, "simple", group, topic, 42, metadata="héllo", epoch=3)
    commit(t, "offset 0", group, topic, 0, partition=1)
    commit(t, "offset -5", group, topic, -5, partition=1)
    commit(t, "offset -1", group, topic, -1, partition=1)
    commit(t, "null metadata", group, topic, 7, partition=2, metadata=None)
    for size in (4096, 4097):
        commit(t, f"metadata {size}", group, topic, 9, partition=2, metadata="m" * size)
    commit(t, "partition 9", group, topic, partition=9)
    commit(t, "absent topic", group, t.name("absent"))
    commit(t, "topic ''", group, "")
    for version in (5, 7, 8, 9):
        fetched(t, "all", group, None, version)
        fetched(t, "some", group, [{"Name": topic, "PartitionIndexes": [0, 1, 2, 9]}, {"Name": t.name("absent"), "PartitionIndexes": [0]}], version)
        fetched(t, "none asked", group, [], version)
        fetched(t, "unknown group", t.name("unknown"), None, version)
        fetched(t, "group ''", "", None, version)
    describe(t, "simple group", group)
    t.send("list", "ListGroups", 4, {"StatesFilter": ["Empty"]})
    for version in (2, 8, 9):
        commit(t, "unknown, generation 1", t.name("unknown"), topic, generation=1, member="m", version=version)
        commit(t, "unknown, generation 0", t.name("unknown"), topic, generation=0, version=version)
        commit(t, "group ''", "", topic, version=version)
    t.send("delete offsets", "OffsetDelete", 0, {"GroupId": group, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0}, {"PartitionIndex": 9}]}]})
    t.send("delete of unknown", "OffsetDelete", 0, {"GroupId": t.name("unknown"), "Topics": []})
    fetched(t, "after", group)
    protocols = [{"Name": "range", "Metadata": subscription(topic)}]
    member, generation = member_of(t, t.name("live"), Protocols=protocols)
    sync(t, "sync", t.name("live"), member, generation, [(member, b"\0\0\0\0\0\0\0\0\0\0")])
    commit(t, "live", t.name("live"), topic, 3, member, generation)
    t.send("delete subscribed", "OffsetDelete", 0, {"GroupId": t.name("live"), "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0}]}]})
    commit(t, "simple into live", t.name("live"), topic, 3)


SCENARIOS = [("alone", alone), ("refusals", refusals), ("two", two), ("commits", commits)]
