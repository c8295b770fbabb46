"""Configurations: everything that is reported, and every way to change it, right and wrong."""

import time

TOPIC, BROKER, LOGGER = 2, 4, 8
SET, DELETE, APPEND, SUBTRACT = range(4)


def describe(t, label, kind, name, keys=None, version=4, **more):
    t.send(label, "DescribeConfigs", version, {"Resources": [{"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys}], "IncludeSynonyms": True, **more})


def alter(t, label, kind, name, ops, version=1, validate=False):
    t.send(label, "IncrementalAlterConfigs", version, {"ValidateOnly": validate, "Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [
        {"Name": k, "ConfigOperation": op, "Value": v} for op, k, v in ops]}]})


def settle():
    """Kafka answers a change before every part of it has seen the change."""
    time.sleep(0.6)


def node_name(t):
    return str(t.send("node", "Metadata", 9, {"Topics": []}, quiet=True)["Brokers"][0]["NodeId"])


def reported(t):
    """All of a topic's and the broker's configurations at each version."""
    topic, node = t.topic("plain"), node_name(t)
    for version in (1, 2, 3, 4):
        describe(t, "topic", TOPIC, topic, version=version)
        describe(t, "some", TOPIC, topic, ["retention.ms", "nonsense"], version)
    t.send("without synonyms", "DescribeConfigs", 4, {"Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "ConfigurationKeys": None}]})
    describe(t, "no keys", TOPIC, topic, [])
    describe(t, "broker", BROKER, node)
    describe(t, "broker v1", BROKER, node, version=1)
    describe(t, "cluster default", BROKER, "")
    for label, kind, name in [("absent", TOPIC, t.name("absent")), ("bad name", TOPIC, "a b"), ("empty topic", TOPIC, ""), ("broker 99", BROKER, "99"),
                              ("broker x", BROKER, "x"), ("kind 0", 0, "x"), ("kind 77", 77, "x"), ("internal", TOPIC, "__consumer_offsets")]:
        describe(t, label, kind, name)
    describe(t, "documentation", TOPIC, topic, ["retention.ms"], IncludeDocumentation=False)
    t.send("two resources", "DescribeConfigs", 4, {"Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "ConfigurationKeys": ["retention.ms"]}] * 2})


def incremental(t):
    """SET, DELETE, APPEND, SUBTRACT; unknown names, wrong values, validation only."""
    topic = t.topic("inc")
    # An unknown operation is not among them: Kafka's controller resigns over it, and every other scenario sees that.
    steps = {
        "set": [(SET, "retention.ms", "1234567")], "unknown": [(SET, "nonsense", "1")], "not a number": [(SET, "retention.ms", "abc")], "below": [(SET, "retention.ms", "-2")],
        "null": [(SET, "retention.ms", None)], "delete": [(DELETE, "retention.ms", None)], "delete unset": [(DELETE, "segment.ms", None)], "delete unknown": [(DELETE, "nonsense", None)],
        "append": [(APPEND, "cleanup.policy", "compact")], "append again": [(APPEND, "cleanup.policy", "compact")], "subtract": [(SUBTRACT, "cleanup.policy", "delete")],
        "subtract absent": [(SUBTRACT, "cleanup.policy", "delete")], "append to a number": [(APPEND, "retention.ms", "1")],
        "two": [(SET, "retention.ms", "1111"), (SET, "segment.ms", "2222")], "good and bad": [(SET, "retention.ms", "3333"), (SET, "nonsense", "1")],
        "same twice": [(SET, "retention.ms", "1"), (SET, "retention.ms", "2")], "huge": [(SET, "retention.ms", "9" * 30)], "empty value": [(SET, "retention.ms", "")],
        "path": [(SET, "cleanup.policy", "../../etc/passwd")], "spaces": [(SET, "retention.ms", " 500000 ")], "throttle": [(SET, "leader.replication.throttled.replicas", "*")],
        "throttle bad": [(SET, "leader.replication.throttled.replicas", "zzz")], "small segment": [(SET, "segment.bytes", "1000")], "float": [(SET, "min.cleanable.dirty.ratio", "0.25")],
        "boolean": [(SET, "preallocate", "maybe")], "lags": [(SET, "min.compaction.lag.ms", "100"), (SET, "max.compaction.lag.ms", "10")], "level": [(SET, "compression.gzip.level", "42")],
        "none": [],
    }
    for label, ops in steps.items():
        alter(t, label, TOPIC, topic, ops)
        settle()
        describe(t, f"after {label}", TOPIC, topic, ["retention.ms", "segment.ms", "cleanup.policy"])
    alter(t, "validate", TOPIC, topic, [(SET, "retention.ms", "777")], validate=True)
    alter(t, "validate bad", TOPIC, topic, [(SET, "retention.ms", "x")], validate=True)
    describe(t, "validated", TOPIC, topic, ["retention.ms"])
    alter(t, "absent", TOPIC, t.name("absent"), [(SET, "retention.ms", "1")])
    alter(t, "bad name", TOPIC, "a b", [(SET, "retention.ms", "1")])
    alter(t, "kind 77", 77, "x", [(SET, "retention.ms", "1")])
    alter(t, "no name", TOPIC, "", [(SET, "retention.ms", "1")])
    t.send("twice", "IncrementalAlterConfigs", 1, {"Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "Configs": [{"Name": "retention.ms", "ConfigOperation": 0, "Value": v}]} for v in "12"]})


def replaced(t):
    """AlterConfigs replaces all that was set."""
    topic = t.topic("full", 1, [("retention.ms", "5000"), ("segment.ms", "6000")])
    for label, configs in {"one": [("retention.ms", "7000")], "unknown": [("nonsense", "1")], "wrong": [("retention.ms", "x")], "null": [("retention.ms", None)], "twice": [("retention.ms", "1"), ("retention.ms", "2")], "none": []}.items():
        for validate in (True, False):
            t.send(f"{label} {validate}", "AlterConfigs", 2, {"ValidateOnly": validate, "Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "Configs": [{"Name": k, "Value": v} for k, v in configs]}]})
        settle()
        describe(t, f"after {label}", TOPIC, topic, ["retention.ms", "segment.ms"])
    for label, kind, name in (("absent", TOPIC, t.name("absent")), ("kind 77", 77, "x"), ("broker 99", BROKER, "99")):
        t.send(label, "AlterConfigs", 2, {"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [{"Name": "retention.ms", "Value": "1"}]}]})


def read_modify_write(t):
    """What tools do: read everything, change one thing, write everything back."""
    topic = t.topic("copied", 1, [("retention.ms", "5000")])
    read = {"Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "ConfigurationKeys": None}], "IncludeSynonyms": True}
    found = t.send("read", "DescribeConfigs", 4, read, quiet=True)["Results"][0]["Configs"]
    own = [{"Name": c["Name"], "Value": c["Value"]} for c in found if c["ConfigSource"] == 1]
    every = [{"Name": c["Name"], "Value": c["Value"]} for c in found if not c["ReadOnly"] and c["Value"] is not None]
    for label, configs in {"own": own + [{"Name": "segment.ms", "Value": "600000"}], "all": every, "own again": own}.items():
        t.send(f"write {label}", "AlterConfigs", 2, {"Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "Configs": configs}]})
        settle()
        describe(t, f"after {label}", TOPIC, topic)
    again = [{"Name": c["Name"], "Value": c["Value"], "ConfigOperation": SET} for c in every]
    t.send("incremental all", "IncrementalAlterConfigs", 1, {"Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "Configs": again}]})
    settle()
    describe(t, "after incremental", TOPIC, topic)
    t.send("unset all", "IncrementalAlterConfigs", 1, {"Resources": [{"ResourceType": TOPIC, "ResourceName": topic, "Configs": [
        {"Name": c["Name"], "Value": None, "ConfigOperation": DELETE} for c in every]}]})
    settle()
    describe(t, "after unset", TOPIC, topic)


def broker(t):
    """Broker configurations, for one broker and for all: what is dynamic, what is not."""
    node = node_name(t)
    for name in (node, ""):
        for label, ops in {"read-only": [(SET, "node.id", "5")], "unknown": [(SET, "nonsense.key", "1")], "wrong": [(SET, "log.retention.ms", "x")], "dynamic": [(SET, "log.cleaner.backoff.ms", "15001")],
                           "back": [(DELETE, "log.cleaner.backoff.ms", None)]}.items():
            alter(t, f"{label} {'all' if not name else 'one'}", BROKER, name, ops)
            settle()
            describe(t, f"after {label} {'all' if not name else 'one'}", BROKER, node, ["log.cleaner.backoff.ms"])
    alter(t, "broker 99", BROKER, "99", [(SET, "log.cleaner.backoff.ms", "15001")])
    alter(t, "broker x", BROKER, "x", [(SET, "log.cleaner.backoff.ms", "15001")])


def lists(t):
    """What becomes of a list: of the default, of commas, spaces and names that come again; and of one that all brokers have set."""
    values = ["", ",", "compact,", "compact,,delete", "compact,compact", " compact , delete ", "delete,compact,delete", "x,", "delete, delete"]
    topics = [(op, value, t.topic(f"list{op}{index}")) for op in (SET, APPEND, SUBTRACT) for index, value in enumerate(values)]
    for op, value, topic in topics:
        alter(t, f"policy {op} {value!r}", TOPIC, topic, [(op, "cleanup.policy", value)])
    key = "leader.replication.throttled.replicas"
    for op, value, topic in topics[: len(values)]:
        for change in (SET, APPEND, SUBTRACT):
            for replicas in (",", "0:1,,0:2", "0:1,0:1", " 0:3 , 0:4"):
                alter(t, f"throttled {change} {replicas!r}", TOPIC, topic, [(change, key, replicas)])
    settle()
    for op, value, topic in topics:
        describe(t, f"after {op} {value!r}", TOPIC, topic, ["cleanup.policy", key])
    for index, value in enumerate(values):
        name = t.name(f"made{index}")
        t.created.append(name)
        t.send(f"made {value!r}", "CreateTopics", 7, {"timeoutMs": 10000, "Topics": [{"Name": name, "NumPartitions": 1, "ReplicationFactor": 1, "Configs": [{"Name": "cleanup.policy", "Value": value}]}]})


SCENARIOS = [("lists", lists), ("reported", reported), ("incremental", incremental), ("replaced", replaced), ("read_modify_write", read_modify_write), ("broker", broker)]
