"""Record batches that are wrong, oversized when decoded, or lies (items 37-56). Outcomes are Produce's error codes."""

import gzip
import struct
import time

from wire import batch
from wire.batch import record, varint
from wire.client import Connection

PAIR = [(b"k", b"v"), (b"k2", b"v2")]


def produced(build, **options):
    """Produces `build(now)` to the good client's topic; the answer is the error code."""

    def row(wire, address, good):
        c = Connection(wire, address)
        try:
            data = build(int(time.time() * 1000))
            answer = c.call("Produce", 9, {"Acks": -1, "TimeoutMs": 5000, "TopicData": [
                {"Name": good.topic, "PartitionData": [{"Index": 0, "Records": data}]}]}, options.get("wait", 20))
            return answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"]
        finally:
            c.close()

    return row


def wrong(**over):
    return produced(lambda now: batch.batch(PAIR, timestamp=now, **over))


def section(raw, count=1, attributes=0):
    return produced(lambda now: batch.batch([(None, None)] * count, timestamp=now, raw=raw() if callable(raw) else raw, attributes=attributes))


def field(body):
    """A record whose body is given byte by byte."""
    return varint(len(body)) + body


def gzip_bomb():
    return gzip.compress(record(None, b"\0" * (100 << 20)), 9)


def nested_gzip():
    return gzip.compress(gzip.compress(record(b"k", b"v")))


def message_set(magic):
    body = struct.pack(">bb", magic, 0) + (b"\0" * 8 if magic else b"") + struct.pack(">i1si1s", 1, b"k", 1, b"v")
    return struct.pack(">qiI", 0, len(body) + 4, 0) + body


REFUSED = "2|87|76|10|-1|42|closed"
ROWS = [
    (37, "CRC", "2", wrong(crc=7)),
    (38, "magic 3", "87|2|76|closed|-1", wrong(magic=3)),
    (38, "magic -1", "87|2|76|closed|-1", wrong(magic=-1)),
    (39, "length 48", REFUSED, wrong(length=48)),
    (39, "length past the frame", REFUSED, wrong(length=1 << 30)),
    (39, "length negative", REFUSED, wrong(length=-1)),
    (40, "two batches", "87", produced(lambda now: batch.batch(PAIR, timestamp=now) * 2)),
    (41, "lastOffsetDelta", "87", wrong(last_delta=9)),
    (41, "count 2^31-1", REFUSED, wrong(count=2**31 - 1, last_delta=2**31 - 2)),
    (41, "count 0", REFUSED, wrong(count=0)),
    (41, "count negative", REFUSED, wrong(count=-4)),
    (42, "codec 5", REFUSED, wrong(attributes=5)),
    (42, "codec 7", REFUSED, wrong(attributes=7)),
    (42, "control", "87", wrong(attributes=32)),
    (42, "transactional without a pid", REFUSED + "|48|49|53|0", wrong(attributes=16)),
    (43, "pid with epoch -1", REFUSED + "|0|47|45", wrong(pid=3, pid_epoch=-1, sequence=0)),
    (43, "sequence -2", "87", wrong(pid=4, pid_epoch=0, sequence=-2)),
    (43, "sequence wraps", "0|45", wrong(pid=5, pid_epoch=0, sequence=2**31 - 1)),
    (44, "year 9999", "32", wrong(base_timestamp=253370764800000, max_timestamp=253370764800000)),
    (44, "negative time", "0|32", wrong(base_timestamp=-9, max_timestamp=-9)),
    (44, "max below base", "0|32|87", wrong(max_timestamp=1)),
    (45, "record past the end", REFUSED, section(record(b"k", b"v", length=5000))),
    (45, "record length negative", REFUSED, section(varint(-5) + b"\0" * 20)),
    (45, "record length 0", REFUSED, section(varint(0))),
    (46, "key length -2", REFUSED + "|0", section(field(b"\0\0\0" + varint(-2) + varint(-1) + varint(0)))),
    (47, "header count 2^31-1", REFUSED, section(field(b"\0\0\0" + varint(-1) + varint(-1) + varint(2**31 - 1)))),
    (47, "header key null", REFUSED, section(field(b"\0\0\0" + varint(-1) + varint(-1) + varint(1) + varint(-1) + varint(-1)))),
    (48, "gzip bomb 1000:1", "0|" + REFUSED, section(gzip_bomb, attributes=1)),
    (48, "gzip in gzip", REFUSED, section(nested_gzip, attributes=1)),
    (49, "zstd window 2 GiB", REFUSED, section(b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00", attributes=4)),
    (49, "zstd content size lies", REFUSED, section(b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 7 + b"\x7f" + b"\x09\0\0a", attributes=4)),
    (50, "snappy declares 4 GiB", REFUSED, section(b"\xff\xff\xff\xff\x0f1234567890", attributes=2)),
    (51, "xerial versions", REFUSED, section(b"\x82SNAPPY\0" + struct.pack(">ii", 99, 99) + b"\0\0\0\4abcd", attributes=2)),
    (51, "xerial block 2^31", REFUSED, section(b"\x82SNAPPY\0" + struct.pack(">iiI", 1, 1, 1 << 31) + b"abcd", attributes=2)),
    (52, "lz4 header checksum", REFUSED, section(b"\x04\x22\x4d\x18\x60\x40\0" + b"\0" * 8, attributes=3)),
    (52, "lz4 offset outside", REFUSED, section(b"\x04\x22\x4d\x18\x60\x40\x82" + b"\5\0\0\0" + b"\x10a\xff\xff\0" + b"\0" * 4, attributes=3)),
    (53, "garbage after the last record", "0|" + REFUSED, section(record(b"k", b"v") + b"garbage")),
    (53, "garbage after the stream", "0|" + REFUSED, section(lambda: gzip.compress(record(b"k", b"v")) + b"garbage", attributes=1)),
    (54, "a batch in a compressed batch", REFUSED, section(lambda: gzip.compress(batch.batch(PAIR)), attributes=1)),
    (55, "message set v0", REFUSED, produced(lambda now: message_set(0))),
    (55, "message set v1", REFUSED, produced(lambda now: message_set(1))),
    (56, "base offset set", "0|87", wrong(base_offset=2**62)),
    (56, "leader epoch forged", "0", wrong(epoch=2**31 - 1)),
]
