"""Static membership: taking over an instance id, fencing the old member, removal."""

from .groups import beat, commit, describe, join, sync


def takeover(t):
    """The same instance id comes back under a new member id."""
    topic, group = t.topic("static"), t.name("g")
    t.coordinator(group)
    first = join(t, "join", group, GroupInstanceId="i1")
    member, generation = first["MemberId"], first["GenerationId"]
    sync(t, "sync", group, member, generation, [(member, b"mine")], GroupInstanceId="i1")
    describe(t, "stable", group)
    again = join(t, "back", group, GroupInstanceId="i1")
    fresh = again["MemberId"]
    sync(t, "sync back", group, fresh, again["GenerationId"], GroupInstanceId="i1")
    beat(t, "old is fenced", group, member, generation, GroupInstanceId="i1")
    beat(t, "old without instance", group, member, generation)
    commit(t, "old commits", group, topic, member=member, generation=generation, GroupInstanceId="i1")
    sync(t, "old syncs", group, member, generation, GroupInstanceId="i1")
    join(t, "old joins", group, member, GroupInstanceId="i1")
    beat(t, "new", group, fresh, again["GenerationId"], GroupInstanceId="i1")
    beat(t, "unknown instance", group, fresh, again["GenerationId"], GroupInstanceId="i9")
    commit(t, "new commits", group, topic, member=fresh, generation=again["GenerationId"], GroupInstanceId="i1")
    v9 = join(t, "back with v9", group, version=9, GroupInstanceId="i1")
    sync(t, "sync v9", group, v9["MemberId"], v9["GenerationId"], version=5, GroupInstanceId="i1", ProtocolType="consumer", ProtocolName="range")
    describe(t, "described", group)
    t.send("leave wrong member", "LeaveGroup", 4, {"GroupId": group, "Members": [{"MemberId": "stranger", "GroupInstanceId": "i1"}]})
    t.send("leave unknown instance", "LeaveGroup", 4, {"GroupId": group, "Members": [{"MemberId": "", "GroupInstanceId": "i9"}]})
    t.send("leave", "LeaveGroup", 4, {"GroupId": group, "Members": [{"MemberId": "", "GroupInstanceId": "i1"}]})
    describe(t, "empty", group)


def changed(t):
    """A static member that comes back with other protocols makes a rebalance."""
    group = t.name("g")
    t.coordinator(group)
    first = join(t, "join", group, GroupInstanceId="i1")
    sync(t, "sync", group, first["MemberId"], first["GenerationId"], [(first["MemberId"], b"mine")], GroupInstanceId="i1")
    back = join(t, "back changed", group, GroupInstanceId="i1", Protocols=[{"Name": "sticky", "Metadata": b"new"}])
    describe(t, "after", group)
    join(t, "back in completing", group, GroupInstanceId="i1")
    sync(t, "sync of the replaced", group, back["MemberId"], back["GenerationId"], GroupInstanceId="i1")


SCENARIOS = [("takeover", takeover), ("changed", changed)]
