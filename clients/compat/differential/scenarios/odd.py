"""Requests that no client library sends: other header forms, unknown tags, counts that lie, roles that are not theirs."""

from wire.schema import Raw


def headers(t):
    """Client ids, tags in headers and bodies, correlation ids."""
    topic = t.topic("odd")
    body = {"Topics": [{"Name": topic}], "AllowAutoTopicCreation": False}
    for label, client in {"null": None, "empty": "", "utf8": "клиент", "newline": "a\nb\0c", "long": "c" * 32767, "not utf8": b"\xff\xfe"}.items():
        t.send(f"client id {label}", "Metadata", 9, body, client_id=client, timeout=5)
    t.send("client id length -2", "Metadata", 9, body, client_id=Raw(b"\xff\xfe"), timeout=5)
    t.send("header tags", "Metadata", 9, body, header_tags=b"\2\5\3abc\x0a\0")
    t.send("header tags twice", "Metadata", 9, body, header_tags=b"\2\5\3abc\5\0", timeout=5)
    t.send("header tags descending", "Metadata", 9, body, header_tags=b"\2\x0a\0\5\0", timeout=5)
    t.send("header tag past the end", "Metadata", 9, body, header_tags=b"\1\5\xff\x7f", timeout=5)
    t.send("header tags 2^31", "Metadata", 9, body, header_tags=b"\xff\xff\xff\xff\x07", timeout=5)
    t.send("body tags", "Metadata", 9, {**body, "_tags": [(7, b"xyz"), (70000, b"")]})
    t.send("nested tags", "Metadata", 9, {"Topics": [{"Name": topic, "_tags": [(0, b"\1\2")]}], "AllowAutoTopicCreation": False})


def counts(t):
    """Counts and lengths that say more than there is; nulls where none may be."""
    for label, raw in {"2^31-1": b"\x7f\xff\xff\xff", "1000000": b"\x00\x0f\x42\x40"}.items():
        t.send(f"metadata count {label}", "Metadata", 4, {"Topics": Raw(raw)}, timeout=5)
        t.send(f"produce count {label}", "Produce", 3, {"Acks": 1, "TopicData": Raw(raw)}, timeout=5)
        t.send(f"groups count {label}", "DescribeGroups", 0, {"Groups": Raw(raw)}, timeout=5)
    t.send("compact 2^32-1", "Metadata", 9, {"Topics": Raw(b"\xff\xff\xff\xff\x0f")}, timeout=5)
    t.send("varint of 6 bytes", "Metadata", 9, {"Topics": Raw(b"\xff\xff\xff\xff\xff\x01")}, timeout=5)
    t.send("varint not minimal", "Metadata", 9, {"Topics": Raw(b"\x81\x80\x00")}, timeout=5)
    t.send("string past the end", "FindCoordinator", 0, {"Key": Raw(b"\x7f\xffabc")}, timeout=5)
    t.send("null key", "FindCoordinator", 0, {"Key": None}, timeout=5)
    t.send("null group", "Heartbeat", 0, {"GroupId": None}, timeout=5)
    t.send("null array", "DescribeGroups", 0, {"Groups": None}, timeout=5)
    t.send("body short", "ListOffsets", 5, b"\0\0", timeout=5)
    t.send("trailing bytes", "ApiVersions", 0, b"trailing", timeout=5)
    t.send("empty body", "Produce", 9, b"", timeout=5)


def roles(t):
    """A client that says it is a replica, keys that do not exist, coordinators of other kinds."""
    topic = t.topic("roles")
    t.fill(topic, 2)
    for kind in (0, 5, 77):
        t.send(f"coordinator kind {kind}", "FindCoordinator", 3, {"Key": t.name("g"), "KeyType": kind})
    t.send("coordinators", "FindCoordinator", 4, {"KeyType": 0, "CoordinatorKeys": [t.name("g"), "", t.name("g")]})
    t.send("no coordinators", "FindCoordinator", 4, {"KeyType": 0, "CoordinatorKeys": []})
    t.send("coordinator ''", "FindCoordinator", 3, {"Key": "", "KeyType": 0})
    for replica in (0, 99, -2):
        t.send(f"list offsets as {replica}", "ListOffsets", 5, {"ReplicaId": replica, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "CurrentLeaderEpoch": -1, "Timestamp": -1}]}]})
    for key in (-1, 4, 52, 93, 1000, 32767):
        frame = t.wire.header(key, 0, 1) + b"\0" * 8
        t.connection(f"key{key}").send_raw(len(frame).to_bytes(4, "big") + frame)
        t.finish(f"key {key}", "ApiVersions", 0, f"key{key}", timeout=5)
    for length in (0, -1, 3, 2**31 - 1, 104857601, 369295616):
        t.connection(f"len{length}").send_raw(length.to_bytes(4, "big", signed=True))
        t.finish(f"length {length}", "ApiVersions", 0, f"len{length}", timeout=2)


SCENARIOS = [("headers", headers), ("counts", counts), ("roles", roles)]
