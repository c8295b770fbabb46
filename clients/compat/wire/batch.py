"""Builds and reads record batches (magic 2). Every header field can be overridden, so wrong batches are easy to make."""

import gzip
import struct

from .schema import DecodeError, Reader

HEADER = struct.Struct(">qiibIhiqqqhii")
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def _literal(data):
    """One raw snappy block that repeats nothing."""
    if not data:
        return b"\0"
    size = len(data) - 1
    return _uvarint(len(data)) + (bytes([60 << 2, size]) if size < 256 else bytes([61 << 2]) + struct.pack("<H", size)) + data


def _snappy(data):
    """snappy-java's framing around one block of up to 64 KiB."""
    block = _literal(data)
    return b"\x82SNAPPY\0" + struct.pack(">iii", 1, 1, len(block)) + block


def _xxh32(data):
    """xxHash32 of up to 15 bytes, seed 0."""
    mask, h = 0xFFFFFFFF, 0x165667B1 + len(data)
    for at in range(0, len(data) - 3, 4):
        h = h + struct.unpack_from("<I", data, at)[0] * 0xC2B2AE3D & mask
        h = (h << 17 | h >> 15) * 0x27D4EB2F & mask
    for byte in data[len(data) & ~3 :]:
        h = h + byte * 0x165667B1 & mask
        h = (h << 11 | h >> 21) * 0x9E3779B1 & mask
    for shift, factor in ((15, 0x85EBCA77), (13, 0xC2B2AE3D), (16, 1)):
        h = (h ^ h >> shift) * factor & mask
    return h


def _lz4(data):
    """A frame of one block that is stored, not compressed; up to 64 KiB."""
    head = b"\x60\x40"
    return b"\x04\x22\x4d\x18" + head + bytes([_xxh32(head) >> 8 & 0xFF]) + struct.pack("<I", len(data) | 1 << 31) + data + b"\0" * 4


def _zstd(data):
    """A frame of one raw block, without its size and without a checksum; up to 128 KiB."""
    return b"\x28\xb5\x2f\xfd\x00\x58" + struct.pack("<I", len(data) << 3 | 1)[:3] + data


ENCODERS = {"none": bytes, "gzip": lambda data: gzip.compress(data, mtime=0), "snappy": _snappy, "lz4": _lz4, "zstd": _zstd}


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def crc32c(data):
    """CRC-32C (Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _uvarint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint(value):
    """A zig-zag varint of up to 64 bits."""
    return _uvarint((value << 1 ^ value >> 63) & 0xFFFFFFFFFFFFFFFF)


def _sized(data):
    return varint(-1) if data is None else varint(len(data)) + data


def record(key, value, offset_delta=0, timestamp_delta=0, headers=(), length=None):
    """One record; `length` overrides the length it announces."""
    body = b"\0" + varint(timestamp_delta) + varint(offset_delta) + _sized(key) + _sized(value) + varint(len(headers))
    for name, content in headers:
        body += varint(len(name)) + name.encode() + _sized(content)
    return varint(len(body) if length is None else length) + body


def batch(records, timestamp=0, codec="none", raw=None, **over):
    """A batch of (key, value) or (key, value, headers) tuples.

    `raw` replaces the records section as it will lie in the batch. Header fields by keyword: base_offset, epoch, magic,
    crc, attributes, last_delta, base_timestamp, max_timestamp, pid, pid_epoch, sequence, count, length.
    """
    if raw is None:
        parts = [record(r[0], r[1], i, 0, r[2] if len(r) > 2 else ()) for i, r in enumerate(records)]
        raw = ENCODERS[codec](b"".join(parts))
    count = len(records)
    tail = struct.pack(
        ">hiqqqhii",
        over.get("attributes", CODECS[codec]),
        over.get("last_delta", count - 1),
        over.get("base_timestamp", timestamp),
        over.get("max_timestamp", timestamp),
        over.get("pid", -1),
        over.get("pid_epoch", -1),
        over.get("sequence", -1),
        over.get("count", count),
    ) + raw
    crc = over.get("crc", crc32c(tail))
    middle = struct.pack(">ibI", over.get("epoch", -1), over.get("magic", 2), crc)
    length = over.get("length", len(middle) + len(tail))
    return struct.pack(">qi", over.get("base_offset", 0), length) + middle + tail


def _varint(reader):
    value = reader.uvarint()
    return value >> 1 ^ -(value & 1)


def _take(reader):
    size = _varint(reader)
    return None if size < 0 else reader.take(size).hex()


def _records(data, count):
    reader, out = Reader(data), []
    for _ in range(count):
        _varint(reader)
        reader.take(1)
        item = {"TimestampDelta": _varint(reader), "OffsetDelta": _varint(reader), "Key": _take(reader), "Value": _take(reader)}
        item["Headers"] = [[_take(reader), _take(reader)] for _ in range(_varint(reader))]
        out.append(item)
    return out


def parse(data):
    """The batches in a fetched records field as dicts; a cut-off last batch is left out, as a client would."""
    out, at = [], 0
    while len(data) - at >= HEADER.size:
        names = "BaseOffset Length Epoch Magic Crc Attributes LastDelta BaseTimestamp MaxTimestamp Pid PidEpoch Sequence Count"
        item = dict(zip(names.split(), HEADER.unpack_from(data, at)))
        end = at + 12 + item["Length"]
        if end > len(data):
            break
        if item["Crc"] != crc32c(data[at + 21 : end]):
            item["_crc"] = "wrong"
        payload = data[at + HEADER.size : end]
        try:
            item["Records"] = payload.hex() if item["Attributes"] & 7 else _records(payload, item["Count"])
        except DecodeError as error:
            item["Records"] = f"undecodable: {error}"
        out.append(item)
        at = end
    return out
