"""Topics: creation, names, shapes, partitions, deletion, metadata."""

import time


def create(t, label, name, partitions=1, replicas=1, version=7, assignments=(), configs=(), validate=False):
    if name != "__consumer_offsets":  # what is created is deleted at the end; without this one there are no groups
        t.created.append(name)
    t.send(label, "CreateTopics", version, {"timeoutMs": 10000, "validateOnly": validate, "Topics": [{
        "Name": name, "NumPartitions": partitions, "ReplicationFactor": replicas,
        "Assignments": [{"PartitionIndex": i, "BrokerIds": b} for i, b in assignments],
        "Configs": [{"Name": k, "Value": v} for k, v in configs]}]})


def described(t, label, topics, version=12, auto=False):
    return t.send(label, "Metadata", version, {"Topics": topics, "AllowAutoTopicCreation": auto})


def creation(t):
    """Shapes, names and configurations, valid and wrong."""
    node = t.send("node", "Metadata", 9, {"Topics": []}, quiet=True)["Brokers"][0]["NodeId"]
    for partitions in (1, 3, 0, -1, -2, 100001, 2**31 - 1):
        create(t, f"partitions {partitions}", t.name(f"p{partitions}"), partitions)
    for replicas in (-1, 0, 2, -2, 32767):
        create(t, f"replicas {replicas}", t.name(f"r{replicas}"), 1, replicas)
    for index, name in enumerate(["", ".", "..", "a b", "a/b", "x" * 249 + "!", "y" * 250, "ünicode", "../../etc", "__consumer_offsets"]):
        create(t, f"name {index}", name)
    create(t, "with dot", t.name("a.b"))
    create(t, "collides", t.name("a_b"))
    create(t, "exists", t.name("p1"))
    create(t, "validate", t.name("v"), 3, validate=True)
    create(t, "validate existing", t.name("p1"), validate=True)
    described(t, "validated is absent", [{"Name": t.name("v")}])
    create(t, "assigned", t.name("m"), -1, -1, assignments=[(0, [node]), (1, [node])])
    for label, parts in {"gap": [(0, [node]), (2, [node])], "unknown node": [(0, [99])], "no replica": [(0, [])], "replica twice": [(0, [node, node])],
                         "partition twice": [(0, [node]), (0, [node])], "negative": [(-1, [node])]}.items():
        create(t, label, t.name(f"m-{label.replace(' ', '-')}"), -1, -1, assignments=parts)
    create(t, "both", t.name("both"), 2, 1, assignments=[(0, [node])])
    for index, (key, value) in enumerate([("retention.ms", "1000"), ("retention.ms", "x"), ("retention.ms", "-2"), ("retention.ms", None), ("nonsense", "1"), ("segment.bytes", "10"),
                                          ("cleanup.policy", "compact,delete"), ("cleanup.policy", "shred"), ("compression.type", "zip"), ("compression.type", "zstd"),
                                          ("min.insync.replicas", "0"), ("message.format.version", "2.0"), ("remote.storage.enable", "true"), ("max.message.bytes", "-1"),
                                          ("min.cleanable.dirty.ratio", "1.5"), ("message.timestamp.type", "Never"), ("", "1")]):
        create(t, f"config {index} {key}={value}", t.name(f"c{index}"), configs=[(key, value)])
    create(t, "config twice", t.name("c-twice"), configs=[("retention.ms", "1"), ("retention.ms", "2")])
    same = {"Name": t.name("same"), "NumPartitions": 1, "ReplicationFactor": 1}
    t.send("same name twice", "CreateTopics", 7, {"timeoutMs": 5000, "Topics": [same, same, {**same, "Name": t.name("other")}]})
    t.send("none", "CreateTopics", 7, {"timeoutMs": 5000, "Topics": []})
    create(t, "v3 defaults", t.name("v3"), -1, -1, version=3)
    for version in (2, 4, 5, 7):
        create(t, "made", t.name(f"made{version}"), 2, 1, version=version)
    t.wait_leader(t.name("made7"), 2)
    described(t, "all made", [{"Name": t.name(n)} for n in ("p1", "p3", "m", "a.b", "made2", "made7", "other", "same")])


def metadata(t):
    """What Metadata says of known, unknown, wrong and all topics."""
    topic = t.topic("meta", 3)
    topic_id = t.topic_id(topic)
    for version in (0, 1, 4, 8, 9, 10, 12, 13):
        # Before version 4 asking is creating, so there only the known topic.
        described(t, "known and unknown", [{"Name": topic}] + ([{"Name": t.name("absent")}] if version >= 4 else []), version)
        described(t, "none", [], version) if version else None
        if version:
            described(t, "all", None, version)
        for name in ("", ".", "x" * 250, "a b"):
            described(t, f"name {name[:5]!r}", [{"Name": name}], version)
    described(t, "same twice", [{"Name": topic}, {"Name": topic}])
    for version in (10, 11, 12, 13):
        described(t, "by id", [{"TopicId": topic_id, "Name": None}], version)
        described(t, "by unknown id", [{"TopicId": "7e" * 16, "Name": None}], version)
        described(t, "by zero id", [{"TopicId": "00" * 16, "Name": None}], version)
    described(t, "id and name", [{"TopicId": topic_id, "Name": topic}])
    t.send("operations", "Metadata", 8, {"Topics": [{"Name": topic}], "IncludeTopicAuthorizedOperations": True, "IncludeClusterAuthorizedOperations": True})
    t.send("cluster operations", "DescribeCluster", 1, {"IncludeClusterAuthorizedOperations": True, "EndpointType": 1})
    for kind in (0, 2, 9):
        t.send(f"endpoint type {kind}", "DescribeCluster", 1, {"EndpointType": kind})


def automatic(t):
    """Topics made by asking for them."""
    for version in (3, 4, 12):
        name = t.name(f"auto{version}")
        t.created.append(name)
        described(t, "asked", [{"Name": name}], version, True)
        t.wait_leader(name)
        described(t, "there", [{"Name": name}], 8)
    described(t, "not allowed", [{"Name": t.name("never")}], 8)
    described(t, "bad name", [{"Name": "a b"}], 8, True)
    t.created.append(t.name("col.lides"))
    described(t, "asked", [{"Name": t.name("col.lides")}], 9, True)
    t.wait_leader(t.name("col.lides"))
    for _ in range(2):  # it is never there: its name collides with the other's
        described(t, "collides", [{"Name": t.name("col_lides")}], 9, True)
        time.sleep(0.3)
    described(t, "known, unknown and wrong", [{"Name": t.name("auto12")}, {"Name": ".."}, {"Name": t.name("col_lides")}], 12)


def partitions(t):
    """Adding partitions. 2^31 - 1 of them are not asked for: Kafka's controller resigns over it, and every other scenario sees that."""
    node = t.send("node", "Metadata", 9, {"Topics": []}, quiet=True)["Brokers"][0]["NodeId"]
    topic = t.topic("parts", 2)
    for label, item, more in [("shrink", {"Count": 1}, {}), ("same", {"Count": 2}, {}), ("validate", {"Count": 4}, {"ValidateOnly": True}), ("grow", {"Count": 3}, {}),
                              ("zero", {"Count": 0}, {}), ("negative", {"Count": -1}, {}), ("absent", {"Count": 3, "Name": t.name("absent")}, {}),
                              ("assigned", {"Count": 4, "Assignments": [{"BrokerIds": [node]}]}, {}), ("too many assigned", {"Count": 5, "Assignments": [{"BrokerIds": [node]}] * 2}, {}),
                              ("unknown node", {"Count": 5, "Assignments": [{"BrokerIds": [99]}]}, {}), ("no node", {"Count": 5, "Assignments": [{"BrokerIds": []}]}, {}),
                              ("bad name", {"Count": 2, "Name": "a b"}, {})]:
        t.send(label, "CreatePartitions", 3, {"TimeoutMs": 5000, "Topics": [{"Name": topic, "Assignments": None, **item}], **more})
    t.send("twice", "CreatePartitions", 3, {"TimeoutMs": 5000, "Topics": [{"Name": topic, "Count": n, "Assignments": None} for n in (5, 6)]})
    t.wait_leader(topic, 4)
    described(t, "after", [{"Name": topic}])


def internal(t):
    """Adding partitions to the offsets topic, as far as nothing comes of it: each broker's groups are the other scenarios' too."""
    for label, item, more in [("same", {"Count": 50}, {}), ("shrink", {"Count": 40}, {}), ("validate", {"Count": 60}, {"ValidateOnly": True}), ("too many assigned", {"Count": 51, "Assignments": [{"BrokerIds": [99]}]}, {})]:
        t.send(label, "CreatePartitions", 3, {"TimeoutMs": 5000, "Topics": [{"Name": "__consumer_offsets", "Assignments": None, **item}], **more})


def impatient(t):
    """Requests that leave no time: nothing is begun."""
    topic = t.topic("waits", 2)
    for timeout in (0, -1, -(2**31)):
        for validate in (True, False):
            name = t.name(f"soon{timeout}{validate}")
            t.created.append(name)
            shape = {"NumPartitions": 1, "ReplicationFactor": 1}
            t.send(f"create {timeout} {validate}", "CreateTopics", 7, {"timeoutMs": timeout, "validateOnly": validate, "Topics": [
                {"Name": name, **shape}, {"Name": topic, **shape}, {"Name": "a b", **shape}]})
            described(t, f"created {timeout} {validate}", [{"Name": name}])
            t.send(f"grow {timeout} {validate}", "CreatePartitions", 3, {"TimeoutMs": timeout, "ValidateOnly": validate, "Topics": [
                {"Name": topic, "Count": 3, "Assignments": None}, {"Name": t.name("absent"), "Count": 3, "Assignments": None}]})
        t.send(f"delete {timeout}", "DeleteTopics", 5, {"TopicNames": [topic, t.name("absent")], "TimeoutMs": timeout})
        t.send(f"delete by id {timeout}", "DeleteTopics", 6, {"Topics": [{"Name": topic, "TopicId": "00" * 16}, {"Name": None, "TopicId": "7f" * 16}], "TimeoutMs": timeout})
    described(t, "after", [{"Name": topic}])


def deletion(t):
    """Deleting by name and id; what remains."""
    one, two = t.topic("one"), t.topic("two")
    two_id = t.topic_id(two)
    t.send("names", "DeleteTopics", 5, {"TopicNames": [one, t.name("absent"), "", "a b"], "TimeoutMs": 5000})
    t.send("by id", "DeleteTopics", 6, {"Topics": [{"Name": None, "TopicId": two_id}, {"Name": None, "TopicId": "7f" * 16}], "TimeoutMs": 5000})
    t.send("zero id", "DeleteTopics", 6, {"Topics": [{"Name": None, "TopicId": "00" * 16}], "TimeoutMs": 5000})
    time.sleep(0.5)
    three = t.topic("three")
    three_id = t.topic_id(three)
    t.send("id and name", "DeleteTopics", 6, {"Topics": [{"Name": three, "TopicId": three_id}], "TimeoutMs": 5000})
    t.send("twice", "DeleteTopics", 5, {"TopicNames": [three, three], "TimeoutMs": 5000})
    t.send("name and its id", "DeleteTopics", 6, {"Topics": [{"Name": three}, {"Name": None, "TopicId": three_id}], "TimeoutMs": 5000})
    described(t, "gone", [{"Name": one}, {"Name": two}])


SCENARIOS = [("creation", creation), ("metadata", metadata), ("automatic", automatic), ("partitions", partitions), ("internal", internal), ("impatient", impatient), ("deletion", deletion)]
