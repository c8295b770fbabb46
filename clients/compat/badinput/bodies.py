"""Request bodies and groups (items 21-36, 67-71). Outcomes: an error code, `any answer`, or how the connection ended."""

import struct

from wire.client import Connection
from wire.schema import Raw


def codes(value):
    """The first error code in an answer that is not 0, depth first; 0 if all is well."""
    if isinstance(value, dict):
        if value.get("ErrorCode"):
            return value["ErrorCode"]
        value = list(value.values())
    if isinstance(value, list):
        return next((c for c in map(codes, value) if c), 0)
    return 0


def ask(api, version, body, wait=15.0):
    """One request. `body` may be a function of the good client."""

    def row(wire, address, good):
        c = Connection(wire, address)
        try:
            return codes(c.call(api, version, body(good) if callable(body) else body, wait))
        finally:
            c.close()

    return row


def fetch(partition=None, **over):
    def body(good):
        part = {"Partition": 0, "CurrentLeaderEpoch": -1, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20, **(partition or {})}
        return {"ReplicaId": -1, "MaxWaitMs": 100, "MinBytes": 0, "MaxBytes": 1 << 20, "SessionEpoch": -1, "Topics": [{"Topic": good.topic, "Partitions": [part]}], **over}

    return ask("Fetch", 12, body)


def many_partitions(good):
    parts = [{"Partition": i, "CurrentLeaderEpoch": -1, "PartitionMaxBytes": 1000} for i in range(100000)]
    return {"ReplicaId": -1, "MaxWaitMs": 2**31 - 1, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionEpoch": -1, "Topics": [{"Topic": good.topic, "Partitions": parts}]}


def create(**over):
    return ask("CreateTopics", 5, lambda good: {"timeoutMs": 5000, "Topics": [{"Name": good.topic + "-bad", "NumPartitions": 1, "ReplicationFactor": 1, **over}]})


def alter(name, value):
    return ask("AlterConfigs", 1, lambda good: {"Resources": [{"ResourceType": 2, "ResourceName": good.topic, "Configs": [{"Name": name, "Value": value}]}]})


def join(**over):
    return ask("JoinGroup", 3, lambda good: {"GroupId": good.topic + "-bad", "SessionTimeoutMs": 10000, "RebalanceTimeoutMs": 10000, "MemberId": "", "ProtocolType": "consumer",
                                            "Protocols": [{"Name": "range", "Metadata": b""}], **over})



def commit(offset=1, metadata="", partition=0):
    return ask("OffsetCommit", 8, lambda good: {"GroupId": good.topic + "-simple", "GenerationIdOrMemberEpoch": -1, "MemberId": "", "Topics": [{"Name": good.topic, "Partitions": [
        {"PartitionIndex": partition, "CommittedOffset": offset, "CommittedLeaderEpoch": -1, "CommittedMetadata": metadata}]}]})


def stolen_instance(wire, address, good):
    """Two members with one group.instance.id: the first is fenced."""
    group = good.topic + "-static"
    c = Connection(wire, address)
    body = {"GroupId": group, "SessionTimeoutMs": 10000, "RebalanceTimeoutMs": 10000, "GroupInstanceId": "i", "ProtocolType": "consumer", "Protocols": [{"Name": "range", "Metadata": b""}]}
    for _ in range(100):
        first = c.call("JoinGroup", 5, body)
        if first["ErrorCode"] not in (14, 15, 16):
            break
    member, generation = first["MemberId"], first["GenerationId"]
    c.call("SyncGroup", 3, {"GroupId": group, "GenerationId": generation, "MemberId": member, "GroupInstanceId": "i", "Assignments": [{"MemberId": member, "Assignment": b"x"}]})
    thief = Connection(wire, address)
    thief.call("JoinGroup", 5, body)
    answer = c.call("Heartbeat", 3, {"GroupId": group, "GenerationId": generation, "MemberId": member, "GroupInstanceId": "i"})
    c.close()
    thief.close()
    return answer["ErrorCode"]


NAMES = {"empty": "", "dot": ".", "dots": "..", "250 characters": "x" * 250, "path": "../../etc"}
BIG = b"\x7f\xff\xff\xff"
ROWS = [
    (21, "array 2^31-1", "closed", ask("Metadata", 4, {"Topics": Raw(BIG + b"\0" * 10)})),
    (21, "nested array 2^31-1", "closed", ask("ListOffsets", 5, {"Topics": [{"Name": "x", "Partitions": Raw(BIG)}]})),
    (22, "compact array 2^32-1", "0|closed", ask("Metadata", 9, {"Topics": Raw(b"\xff\xff\xff\xff\x0f")})),
    (23, "count -2", "closed|0|42", ask("Metadata", 4, {"Topics": Raw(b"\xff\xff\xff\xfe")})),
    (24, "null name", "closed", ask("Metadata", 9, {"Topics": [{"Name": None}]})),
    (24, "null group", "closed", ask("Heartbeat", 0, {"GroupId": None})),
    (25, "string past the frame", "closed", ask("FindCoordinator", 0, {"Key": Raw(b"\x7f\xffab")})),
    (26, "1,000,000 topics of one byte", "any answer|closed|silent|3", ask("Metadata", 4, {"Topics": Raw(struct.pack(">i", 1000000) + b"\0\1x" * 1000000), "AllowAutoTopicCreation": False}, 30)),
    (27, "a partition twice", "any answer", ask("ListOffsets", 5, lambda g: {"ReplicaId": -1, "Topics": [{"Name": g.topic, "Partitions": [{"PartitionIndex": 0, "CurrentLeaderEpoch": -1}] * 2}]})),
    (28, "partition -1", "3", ask("ListOffsets", 5, lambda g: {"ReplicaId": -1, "Topics": [{"Name": g.topic, "Partitions": [{"PartitionIndex": -1, "CurrentLeaderEpoch": -1}]}]})),
    (28, "partition 2^31-1", "3", fetch({"Partition": 2**31 - 1})),
    *[(29, f"create {label}", "17", create(Name=name)) for label, name in NAMES.items()],
    (29, "create an internal topic", "36|17", create(Name="__consumer_offsets")),
    (30, "unknown topic id", "100", ask("Metadata", 12, {"Topics": [{"TopicId": "5c" * 16, "Name": None}]})),
    (30, "zero topic id", "any answer", ask("Metadata", 12, {"Topics": [{"TopicId": "00" * 16, "Name": None}]})),
    (31, "fetch as replica 0", "any answer", fetch(ReplicaId=0)),
    (32, "max_bytes negative", "any answer", fetch(MaxBytes=-1)),
    (32, "max_bytes 2^31-1", "0", fetch(MaxBytes=2**31 - 1)),
    (32, "offset -5", "1", fetch({"FetchOffset": -5})),
    (32, "offset 2^63-1", "1", fetch({"FetchOffset": 2**63 - 1})),
    (32, "epoch -2", "any answer", fetch({"CurrentLeaderEpoch": -2})),
    (32, "session unknown", "70", fetch(SessionId=99, SessionEpoch=5)),
    (33, "100,000 partitions", "3|any answer", ask("Fetch", 12, many_partitions, 30)),
    (34, "1,000,000 partitions", "37|44|42|-1|0|10", create(NumPartitions=1000000)),
    (34, "replication factor 32767", "38", create(ReplicationFactor=32767)),
    (34, "replica twice", "39", create(NumPartitions=-1, ReplicationFactor=-1, Assignments=[{"PartitionIndex": 0, "BrokerIds": [1, 1]}])),
    (35, "unknown key", "40", alter("nonsense", "1")),
    (35, "value of 32 KiB", "40", alter("retention.ms", "9" * 32000)),
    (35, "path", "40", alter("cleanup.policy", "../../etc/passwd")),
    (36, "everything x 1000", "0", ask("DescribeConfigs", 4, lambda g: {"Resources": [{"ResourceType": 2, "ResourceName": g.topic, "ConfigurationKeys": None}] * 1000, "IncludeSynonyms": True}, 30)),
    (67, "10,000 protocols", "any answer|closed", join(Protocols=[{"Name": f"p{i}", "Metadata": b""} for i in range(10000)])),
    (67, "10 MiB of metadata", "any answer|closed", join(Protocols=[{"Name": "range", "Metadata": b"\0" * (10 << 20)}])),
    (67, "session timeout 0", "26", join(SessionTimeoutMs=0)),
    (67, "session timeout 2^31-1", "26", join(SessionTimeoutMs=2**31 - 1)),
    (68, "sync of a stranger", "25", ask("SyncGroup", 3, lambda g: {"GroupId": g.topic + "-bad2", "GenerationId": 1, "MemberId": "m", "Assignments": [{"MemberId": "z", "Assignment": b"x"}]})),
    (69, "heartbeat generation -1", "25|22", ask("Heartbeat", 3, lambda g: {"GroupId": g.topic + "-bad2", "GenerationId": -1, "MemberId": "m"})),
    (69, "heartbeat generation 2^31-1", "25|22", ask("Heartbeat", 3, lambda g: {"GroupId": g.topic + "-bad2", "GenerationId": 2**31 - 1, "MemberId": "m"})),
    (70, "32 KiB of metadata", "12", commit(metadata="m" * 32000)),
    (70, "offset -5", "any answer", commit(offset=-5)),
    (70, "partition outside", "3", commit(partition=77)),
    (71, "static member stolen", "82", stolen_instance),
]
