"""Groups of several members: who is waited for, who is dropped, what is chosen, and what those hear who come too early or too late."""

import time

from .groups import beat, commit, describe, fetched, join, member_of, sync

RANGE, ROBIN, STICKY = ({"Name": name, "Metadata": b"\0\0\0\0\0\0\0\0\0\0"} for name in ("range", "roundrobin", "sticky"))


def preparing(t, group, member, generation, conn="main"):
    """Waits until the group rebalances; says nothing of how long it took."""
    for _ in range(200):
        if t.send("beat", "Heartbeat", 3, {"GroupId": group, "GenerationId": generation, "MemberId": member}, conn, quiet=True)["ErrorCode"] == 27:
            return
        time.sleep(0.02)


def newcomer(t, group, conn, **more):
    """Asks for a member id and parks a join with it. Returns the id."""
    member = join(t, "ask", group, conn=conn, quiet=True, **more)["MemberId"]
    join(t, "", group, member, conn=conn, start=True, **more)
    return member


def votes(t):
    """The protocol that all support, most of them first."""
    group = t.name("g")
    t.coordinator(group)
    one, generation = member_of(t, group, Protocols=[RANGE, ROBIN, STICKY])
    newcomer(t, group, "two", Protocols=[ROBIN, STICKY])
    preparing(t, group, one, generation)
    join(t, "one", group, one, Protocols=[RANGE, ROBIN, STICKY])
    two = t.finish("two", "JoinGroup", 5, "two")
    newcomer(t, group, "three", Protocols=[STICKY, ROBIN])
    preparing(t, group, one, generation + 1)
    join(t, "", group, two["MemberId"], conn="two", start=True, Protocols=[STICKY, ROBIN])
    join(t, "one of three", group, one, Protocols=[RANGE, ROBIN, STICKY])
    t.finish("two of three", "JoinGroup", 5, "two")
    t.finish("three", "JoinGroup", 5, "three")
    join(t, "nothing in common", group, conn="four", Protocols=[RANGE])
    describe(t, "completing", group)


def laggards(t):
    """A member that does not rejoin in time is dropped, and one that never syncs."""
    group = t.name("g")
    t.coordinator(group)
    one, generation = member_of(t, group, RebalanceTimeoutMs=1500)
    sync(t, "sync", group, one, generation, [(one, b"all")])
    two = newcomer(t, group, "two", RebalanceTimeoutMs=1500)
    t.finish("without one", "JoinGroup", 5, "two")
    beat(t, "the dropped beats", group, one, generation)
    sync(t, "the dropped syncs", group, one, generation)
    commit(t, "the dropped commits", group, t.name("absent"), member=one, generation=generation)
    join(t, "the dropped rejoins", group, one)
    describe(t, "two alone", group)
    time.sleep(2.5)  # the rebalance timeout passes and the leader has not synced
    beat(t, "never synced", group, two, generation + 1)
    describe(t, "nobody", group)


def expired(t):
    """A session ends: the member is gone, its pending one too."""
    group, waiting = t.name("g"), t.name("waiting")
    t.coordinator(group)
    t.coordinator(waiting)
    one, generation = member_of(t, group, SessionTimeoutMs=6000)
    sync(t, "sync", group, one, generation, [(one, b"all")])
    pending = join(t, "pending", waiting, SessionTimeoutMs=6000)["MemberId"]
    time.sleep(3)
    beat(t, "in time", group, one, generation)
    time.sleep(4)
    beat(t, "still there", group, one, generation)
    join(t, "pending too late", waiting, pending)
    time.sleep(7)
    beat(t, "too late", group, one, generation)
    describe(t, "empty", group)
    describe(t, "never was", waiting)


def leaving(t):
    """Members that leave while others wait: in a rebalance, as leader, several at once, before they joined."""
    group = t.name("g")
    t.coordinator(group)
    pending = join(t, "pending", group)["MemberId"]
    t.send("pending leaves", "LeaveGroup", 5, {"GroupId": group, "Members": [{"MemberId": pending, "Reason": "no"}]})
    join(t, "with the old id", group, pending)
    one, generation = member_of(t, group)
    sync(t, "sync", group, one, generation, [(one, b"all")])
    two = newcomer(t, group, "two")
    preparing(t, group, one, generation)
    t.send("leader leaves", "LeaveGroup", 3, {"GroupId": group, "Members": [{"MemberId": one}]})
    t.finish("two is leader", "JoinGroup", 5, "two")
    three = newcomer(t, group, "three")
    preparing(t, group, two, generation + 1, "main")
    t.send("both leave", "LeaveGroup", 4, {"GroupId": group, "Members": [{"MemberId": two}, {"MemberId": three}, {"MemberId": two}]})
    t.finish("parked join of one that left", "JoinGroup", 5, "three", timeout=3)
    describe(t, "empty", group)
    t.send("nobody leaves", "LeaveGroup", 4, {"GroupId": group, "Members": []})
    t.send("'' leaves", "LeaveGroup", 1, {"GroupId": group, "MemberId": ""})


def parked_syncs(t):
    """Followers wait for the leader's assignment; a rebalance ends their waiting."""
    group = t.name("g")
    t.coordinator(group)
    one, generation = member_of(t, group)
    two = newcomer(t, group, "two")
    preparing(t, group, one, generation)
    join(t, "one", group, one)
    t.finish("two", "JoinGroup", 5, "two")
    generation += 1
    t.start("SyncGroup", 3, {"GroupId": group, "GenerationId": generation, "MemberId": two, "Assignments": []}, "two")
    three = newcomer(t, group, "three")
    t.finish("the parked hears", "SyncGroup", 3, "two")
    join(t, "", group, two, conn="two", start=True)
    join(t, "one again", group, one)
    t.finish("two again", "JoinGroup", 5, "two")
    t.finish("three", "JoinGroup", 5, "three")
    generation += 1
    for conn, member in (("two", two), ("three", three)):
        t.start("SyncGroup", 5, {"GroupId": group, "GenerationId": generation, "MemberId": member, "ProtocolType": "consumer", "ProtocolName": "range", "Assignments": []}, conn)
    sync(t, "leader", group, one, generation, [(one, b"1"), (three, b"3")], version=5, ProtocolType="consumer", ProtocolName="range")
    t.finish("left out", "SyncGroup", 5, "two")
    t.finish("assigned", "SyncGroup", 5, "three")
    for version in (0, 3, 6):
        t.send("described", "DescribeGroups", version, {"Groups": [group, group]} if version < 3 else {"Groups": [group], "IncludeAuthorizedOperations": True})
    t.send("three leaves and comes back", "LeaveGroup", 3, {"GroupId": group, "Members": [{"MemberId": three}]}, "three")
    join(t, "with its old id", group, three, conn="three")


def static_pair(t):
    """Two static members: one is replaced while the group is stable, and one while it rebalances."""
    group = t.name("g")
    t.coordinator(group)
    first = join(t, "a", group, GroupInstanceId="a", version=7)
    one, generation = first["MemberId"], first["GenerationId"]
    join(t, "", group, conn="two", version=7, start=True, GroupInstanceId="b")
    preparing(t, group, one, generation)
    join(t, "a again", group, one, GroupInstanceId="a", version=7)
    two = t.finish("b", "JoinGroup", 7, "two")["MemberId"]
    generation += 1
    t.start("SyncGroup", 4, {"GroupId": group, "GenerationId": generation, "MemberId": two, "GroupInstanceId": "b", "Assignments": []}, "two")
    sync(t, "a syncs", group, one, generation, [(one, b"1"), (two, b"2")], version=4, GroupInstanceId="a")
    t.finish("b syncs", "SyncGroup", 4, "two")
    back = join(t, "the follower comes back", group, GroupInstanceId="b", conn="two", version=7)
    sync(t, "and gets what it had", group, back["MemberId"], back["GenerationId"], conn="two", version=4, GroupInstanceId="b")
    back = join(t, "the leader comes back", group, GroupInstanceId="a", version=9, Reason="restart")
    sync(t, "and gets it too", group, back["MemberId"], back["GenerationId"], version=5, GroupInstanceId="a", ProtocolType="consumer", ProtocolName="range")
    describe(t, "stable", group)
    newcomer(t, group, "three")
    preparing(t, group, back["MemberId"], generation)
    join(t, "", group, conn="two", version=7, start=True, GroupInstanceId="b")
    join(t, "", group, version=7, start=True, GroupInstanceId="a")
    # The leader's answer last: it lists the members in any order, and they get their symbols here.
    t.finish("b rejoined", "JoinGroup", 7, "two")
    t.finish("three", "JoinGroup", 5, "three")
    t.finish("replaced while it rebalances", "JoinGroup", 7)
    t.send("both are removed", "LeaveGroup", 4, {"GroupId": group, "Members": [{"MemberId": "", "GroupInstanceId": "a"}, {"MemberId": "", "GroupInstanceId": "b"}]})
    describe(t, "one is left", group)


def offsets(t):
    """What is committed and asked for in ways that clients seldom use."""
    topic, other, group = t.topic("one", 3), t.topic("two", 1), t.name("g")
    t.coordinator(group)
    t.send("several", "OffsetCommit", 8, {"GroupId": group, "GenerationIdOrMemberEpoch": -1, "MemberId": "", "Topics": [
        {"Name": topic, "Partitions": [{"PartitionIndex": i, "CommittedOffset": i * 10, "CommittedLeaderEpoch": -1, "CommittedMetadata": f"m{i}"} for i in (0, 1, 7, 0)]},
        {"Name": other, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 2**63 - 1, "CommittedLeaderEpoch": 2**31 - 1, "CommittedMetadata": ""}]},
        {"Name": topic, "Partitions": [{"PartitionIndex": 2, "CommittedOffset": 5, "CommittedLeaderEpoch": 0, "CommittedMetadata": None}]}]})
    t.send("nothing", "OffsetCommit", 8, {"GroupId": group, "GenerationIdOrMemberEpoch": -1, "MemberId": "", "Topics": []})
    commit(t, "as a member of nothing", group, topic, member="m")
    commit(t, "generation 0", group, topic, member="", generation=0)
    commit(t, "with an instance", group, topic, GroupInstanceId="i")
    for version in (1, 2, 5, 7):
        fetched(t, "twice and unknown", group, [{"Name": topic, "PartitionIndexes": [0, 0, 2, 99]}, {"Name": topic, "PartitionIndexes": [1]}], version)
    for version in (8, 9):
        t.send("groups", "OffsetFetch", version, {"RequireStable": True, "Groups": [
            {"GroupId": group, "Topics": None}, {"GroupId": t.name("unknown"), "Topics": None}, {"GroupId": group, "Topics": [{"Name": other, "PartitionIndexes": [0]}]}]})
        t.send("as a member", "OffsetFetch", version, {"Groups": [{"GroupId": group, "Topics": None, "MemberId": "m", "MemberEpoch": 3}]})
        t.send("no groups", "OffsetFetch", version, {"Groups": []})
    t.send("deleted", "DeleteTopics", 5, {"TopicNames": [other], "TimeoutMs": 5000})
    time.sleep(1)  # Kafka forgets them after it has answered
    fetched(t, "without the deleted", group)
    for label, topics in {"none": [], "no partitions": [{"Name": topic, "Partitions": []}], "of another": [{"Name": other, "Partitions": [{"PartitionIndex": 0}]}],
                          "two": [{"Name": topic, "Partitions": [{"PartitionIndex": 0}, {"PartitionIndex": 0}, {"PartitionIndex": 2}]}]}.items():
        t.send(f"delete {label}", "OffsetDelete", 0, {"GroupId": group, "Topics": topics})
    fetched(t, "what is left", group)
    t.send("delete group", "DeleteGroups", 2, {"GroupsNames": [group]})
    fetched(t, "nothing is left", group)
    commit(t, "begins again", group, topic, 3)
    fetched(t, "only the new", group)


SCENARIOS = [("votes", votes), ("laggards", laggards), ("expired", expired), ("leaving", leaving), ("parked_syncs", parked_syncs), ("static_pair", static_pair), ("offsets", offsets)]
