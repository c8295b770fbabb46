"""Every API at every version it is served at, with one plain request; and the versions just outside."""

import time

from wire import batch

SERVED = {
    "Produce": (3, 13), "Fetch": (4, 18), "ListOffsets": (1, 10), "Metadata": (0, 13), "OffsetCommit": (2, 9), "OffsetFetch": (1, 9),
    "FindCoordinator": (0, 5), "JoinGroup": (0, 9), "Heartbeat": (0, 4), "LeaveGroup": (0, 5), "SyncGroup": (0, 5),
    "DescribeGroups": (0, 6), "ListGroups": (0, 5), "DeleteGroups": (0, 2), "OffsetDelete": (0, 0), "ApiVersions": (0, 4),
    "InitProducerId": (0, 5), "OffsetForLeaderEpoch": (2, 4), "CreateTopics": (2, 7), "DeleteTopics": (1, 6),
    "CreatePartitions": (0, 3), "DeleteRecords": (0, 2), "DescribeConfigs": (1, 4), "AlterConfigs": (0, 2),
    "IncrementalAlterConfigs": (0, 1), "DescribeCluster": (0, 2),
}
# The version after the last one that Apache Kafka itself serves: both brokers have to close.
BEYOND = {"ListOffsets": 12, "OffsetCommit": 11, "OffsetFetch": 11, "FindCoordinator": 7, "InitProducerId": 7}


def bodies(t, version, topic, topic_id, group):
    """One plain, valid request for each API."""
    named = {"Name": topic} if version < 13 else {"TopicId": topic_id}
    fetched = {"Topic": topic} if version < 13 else {"TopicId": topic_id}
    data = batch.batch([(b"k", b"v", [("h", b"x")])], timestamp=t.base_time)
    fetch_groups = {"GroupId": group, "Topics": [{"Name": topic, "PartitionIndexes": [0, 1]}]}
    fresh = t.name(f"new{version}")
    t.created.append(fresh)
    join = {"GroupId": group, "SessionTimeoutMs": 10000, "RebalanceTimeoutMs": 10000, "MemberId": "", "ProtocolType": "consumer",
            "Protocols": [{"Name": "range", "Metadata": b"\0\0"}]}
    return {
        "Produce": {"Acks": -1, "TimeoutMs": 5000, "TopicData": [{**named, "PartitionData": [{"Index": 0, "Records": data}]}]},
        "Fetch": {"ReplicaId": -1, "MaxWaitMs": 100, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionEpoch": -1,
                  "Topics": [{**fetched, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}]}]},
        "ListOffsets": {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "CurrentLeaderEpoch": -1, "Timestamp": -1}]}]},
        "Metadata": {"Topics": [{"Name": topic}], "AllowAutoTopicCreation": False},
        "OffsetCommit": {"GroupId": group, "GenerationIdOrMemberEpoch": -1, "MemberId": "", "RetentionTimeMs": -1, "Topics": [
            {"Name": topic, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 7, "CommittedLeaderEpoch": 0, "CommittedMetadata": "note"}]}]},
        "OffsetFetch": {"Groups": [fetch_groups]} if version >= 8 else fetch_groups,
        "FindCoordinator": {"Key": group, "KeyType": 0} if version < 4 else {"KeyType": 0, "CoordinatorKeys": [group, group + "-b"]},
        "JoinGroup": join,
        "Heartbeat": {"GroupId": group, "GenerationId": 1, "MemberId": "nobody"},
        "LeaveGroup": {"GroupId": group, "MemberId": "nobody"} if version < 3 else {"GroupId": group, "Members": [{"MemberId": "nobody"}]},
        "SyncGroup": {"GroupId": group, "GenerationId": 1, "MemberId": "nobody", "ProtocolType": "consumer", "ProtocolName": "range"},
        "DescribeGroups": {"Groups": [group, group + "-none"], "IncludeAuthorizedOperations": True} if version >= 3 else {"Groups": [group, group + "-none"]},
        "ListGroups": {},
        "DeleteGroups": {"GroupsNames": [group, group + "-none"]},
        "OffsetDelete": {"GroupId": group, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0}]}]},
        "ApiVersions": {"ClientSoftwareName": "compat", "ClientSoftwareVersion": "1.0"},
        "InitProducerId": {"TransactionalId": None, "TransactionTimeoutMs": 60000, "ProducerId": -1, "ProducerEpoch": -1},
        "OffsetForLeaderEpoch": {"ReplicaId": -1, "Topics": [{"Topic": topic, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}]}]},
        "CreateTopics": {"Topics": [{"Name": fresh, "NumPartitions": 2, "ReplicationFactor": 1,
                                     "Configs": [{"Name": "retention.ms", "Value": "3600000"}]}], "timeoutMs": 10000},
        "DeleteTopics": {"TopicNames": [t.name("none")], "TimeoutMs": 10000} if version < 6 else
                        {"Topics": [{"Name": t.name("none")}, {"Name": None, "TopicId": "11" * 16}], "TimeoutMs": 10000},
        "CreatePartitions": {"Topics": [{"Name": topic, "Count": 2 + version, "Assignments": None}], "TimeoutMs": 10000},
        "DeleteRecords": {"Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": 1}, {"PartitionIndex": 99, "Offset": 1}]}], "TimeoutMs": 5000},
        "DescribeConfigs": {"Resources": [{"ResourceType": 2, "ResourceName": topic, "ConfigurationKeys": ["retention.ms", "cleanup.policy"]}], "IncludeSynonyms": True},
        "AlterConfigs": {"Resources": [{"ResourceType": 2, "ResourceName": topic, "Configs": [{"Name": "retention.ms", "Value": "7200000"}]}]},
        "IncrementalAlterConfigs": {"Resources": [{"ResourceType": 2, "ResourceName": topic, "Configs": [{"Name": "segment.ms", "ConfigOperation": 0, "Value": "7200000"}]}]},
        "DescribeCluster": {"EndpointType": 1} if version else {},
    }


def sweep(api, low, high):
    """A scenario: `api` at each version, then below and above."""

    def scenario(t):
        topic, group = t.topic("sweep"), t.name("group")
        topic_id = t.topic_id(topic)
        t.fill(topic, 3)
        t.coordinator(group)
        for version in range(low, high + 1):
            body = bodies(t, version, topic, topic_id, f"{group}{version}")[api]
            if api in ("JoinGroup", "DescribeGroups", "DeleteGroups", "OffsetFetch", "OffsetDelete", "ListGroups"):
                prepare = bodies(t, 6, topic, topic_id, f"{group}{version}")["OffsetCommit"]
                t.send("prepare", "OffsetCommit", 6, prepare, quiet=True)
            answer = t.send(f"v{version}", api, version, body)
            if api == "CreatePartitions":
                t.wait_leader(topic, 2 + version)
            if answer.get("_closed"):
                time.sleep(0.05)
        frame = bodies(t, low, topic, topic_id, group)[api]
        outside = [low - 1, BEYOND.get(api, high + 1), -1, 32767]
        for number in outside:
            if api != "ApiVersions" and not (api == "Produce" and number == 2):
                t.send(f"as v{number}", api, low, frame, as_version=number, timeout=5)

    return scenario


def api_versions(t):
    """ApiVersions: unsupported versions answer v0 and the connection lives on; names are checked from v3."""
    for number in (5, 127, 32767):
        t.start("ApiVersions", 3, {"ClientSoftwareName": "x", "ClientSoftwareVersion": "1"}, as_version=number)
        t.finish(f"as v{number}", "ApiVersions", 0)
    t.send("after", "ApiVersions", 2, {})
    for name, number in [("", "1"), ("a b", "1"), ("-a", "1"), ("a-", "1"), ("a.b-c", "1.0-x"), ("a", ""), ("a", "1/2"), ("é", "1")]:
        t.send(f"name {name!r} {number!r}", "ApiVersions", 3, {"ClientSoftwareName": name, "ClientSoftwareVersion": number})


SCENARIOS = [(api.lower(), sweep(api, *span)) for api, span in SERVED.items()] + [("api_versions", api_versions)]
