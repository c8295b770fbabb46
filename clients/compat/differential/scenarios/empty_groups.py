"""Groups that neither members nor offsets are left of."""

import time

from .groups import commit, describe, fetched, join, member_of, neighbour_of, sync


def delete(t, label, *groups):
    t.send(label, "DeleteGroups", 2, {"GroupsNames": list(groups)})


def left_empty(t):
    """Groups whose last offset has gone, one way or another, and the group without a name."""
    topic, other = t.topic("kept", 2), t.topic("going")
    t.coordinator(t.name("a"))
    for name in ("a", "b", "c", "d", "e", "f", "g", "h"):
        t.coordinator(t.name(name))
    commit(t, "to a topic that goes", t.name("a"), other, 1)
    commit(t, "to be deleted", t.name("b"), topic, 1)
    commit(t, "metadata too large", t.name("c"), topic, metadata="m" * 4097)
    # What is in no record is described as of the shard's last committed record, whoever wrote it.
    commit(t, "a neighbour commits", neighbour_of(t, t.name("c")), topic, 1)
    commit(t, "without a name", "", topic, 1)
    t.send("nothing", "OffsetCommit", 8, {"GroupId": t.name("d"), "GenerationIdOrMemberEpoch": -1, "MemberId": "", "Topics": []})
    join(t, "pending", t.name("e"))
    join(t, "pending that leaves", t.name("f"))
    commit(t, "generation 1", t.name("g"), topic, member="m", generation=1)
    t.send("delete offsets", "OffsetDelete", 0, {"GroupId": t.name("b"), "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0}]}]})
    t.send("delete topic", "DeleteTopics", 5, {"TopicNames": [other], "TimeoutMs": 5000})
    time.sleep(1)
    for name in ("a", "b", "c", "d", "e", "g", "h"):
        describe(t, f"{name} described", t.name(name))
        describe(t, f"{name} described v6", t.name(name), 6)
        fetched(t, f"{name} fetched", t.name(name))
    describe(t, "'' described", "")
    describe(t, "'' described", "", 6)
    t.send("list empty", "ListGroups", 5, {"StatesFilter": ["empty"]})
    t.send("list dead", "ListGroups", 5, {"StatesFilter": ["Dead"]})
    for name in ("a", "b", "c", "d", "e", "g", "h"):
        t.send(f"delete offsets of {name}", "OffsetDelete", 0, {"GroupId": t.name(name), "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0}]}]})
        delete(t, f"delete {name}", t.name(name))
        delete(t, f"delete {name} again", t.name(name))
    delete(t, "delete ''", "")
    delete(t, "delete '' again", "")
    t.send("delete offsets of ''", "OffsetDelete", 0, {"GroupId": "", "Topics": []})


def was_consumer(t):
    """A group that had members, and has neither members nor offsets."""
    topic, group = t.topic("t"), t.name("g")
    t.coordinator(group)
    member, generation = member_of(t, group)
    sync(t, "sync", group, member, generation, [(member, b"x")])
    commit(t, "commit", group, topic, 1, member, generation)
    t.send("leave", "LeaveGroup", 4, {"GroupId": group, "Members": [{"MemberId": member}]})
    t.send("delete offsets", "OffsetDelete", 0, {"GroupId": group, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0}]}]})
    describe(t, "described", group)
    commit(t, "as if alone", group, topic, 2)
    commit(t, "stale", group, topic, 3, member, generation)
    fetched(t, "fetched", group)
    delete(t, "deleted", group)
    delete(t, "deleted again", group)
    first = join(t, "anew", group, version=9)
    join(t, "anew", group, first["MemberId"], version=9)


SCENARIOS = [("left_empty", left_empty), ("was_consumer", was_consumer)]
