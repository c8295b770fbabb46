"""Encodes and decodes Kafka messages from the schema files inside the kafka-clients jar.

A message is a dict keyed by the schema's field names. A value of type `Raw` is written as it is in place of a field,
and a struct may carry `_tags`, a list of (tag, bytes): so one encoder produces valid, odd and wrong requests alike.
"""

import io
import json
import re
import struct
import zipfile

FIXED = {"int8": ">b", "int16": ">h", "int32": ">i", "int64": ">q", "uint16": ">H", "uint32": ">I", "float64": ">d"}
ZERO_UUID = "00" * 16


class Raw(bytes):
    """Bytes that replace a field's encoding."""


class DecodeError(Exception):
    """A response that does not match its schema."""


def in_range(spec, version):
    """Whether `version` lies in a schema's version spec such as "0+", "3-5", "7" or "none"."""
    if not spec or spec == "none":
        return False
    if spec.endswith("+"):
        return version >= int(spec[:-1])
    low, _, high = spec.partition("-")
    return int(low) <= version <= int(high or low)


def uvarint(value):
    """An unsigned varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Reader:
    """A cursor over a response; every read is checked against the bytes that remain."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise DecodeError(f"{count} bytes wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def fixed(self, fmt):
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise DecodeError("varint too long")


class Message:
    """One request, response or data schema."""

    def __init__(self, spec):
        self.name = spec["name"]
        self.api_key = spec.get("apiKey")
        self.versions = spec.get("validVersions", "none")
        self.flexible_versions = spec.get("flexibleVersions", "none")
        self.fields = spec.get("fields", [])
        self.structs = {s["name"]: s["fields"] for s in spec.get("commonStructs", [])}
        self._collect(self.fields)

    def _collect(self, fields):
        for field in fields:
            if field.get("fields"):
                self.structs[field["type"].removeprefix("[]")] = field["fields"]
                self._collect(field["fields"])

    def flexible(self, version):
        return in_range(self.flexible_versions, version)

    def encode(self, body, version):
        out = io.BytesIO()
        self._write_struct(out, self.fields, body, version)
        return out.getvalue()

    def decode(self, reader, version):
        return self._read_struct(reader, self.fields, version)

    # writing

    def _write_struct(self, out, fields, body, version):
        flexible, tagged = self.flexible(version), dict((body or {}).get("_tags", []))
        unknown = set(body or {}) - {f["name"] for f in fields} - {"_tags"}
        if unknown:
            raise KeyError(f"{self.name}: no field {unknown}")
        for field in fields:
            if not in_range(field["versions"], version):
                continue
            value = body.get(field["name"], default_of(field, version))
            if in_range(field.get("taggedVersions"), version):
                if field["name"] in body:
                    part = io.BytesIO()
                    self._write(part, field, field["type"], value, version)
                    tagged[field["tag"]] = part.getvalue()
            else:
                self._write(out, field, field["type"], value, version)
        if flexible:
            out.write(uvarint(len(tagged)))
            for tag in sorted(tagged):
                out.write(uvarint(tag) + uvarint(len(tagged[tag])) + tagged[tag])

    def _write(self, out, field, kind, value, version):
        if isinstance(value, Raw):
            out.write(value)
        elif kind.startswith("[]"):
            self._write_length(out, field, None if value is None else len(value), 4, version)
            for item in value or []:
                self._write(out, {"name": field["name"], "flexibleVersions": field.get("flexibleVersions")}, kind[2:], item, version)
        elif kind == "bool":
            out.write(b"\1" if value else b"\0")
        elif kind in FIXED:
            out.write(struct.pack(FIXED[kind], value))
        elif kind == "uuid":
            out.write(bytes.fromhex(value))
        elif kind in ("string", "bytes", "records"):
            data = value.encode() if isinstance(value, str) else value
            self._write_length(out, field, None if data is None else len(data), 2 if kind == "string" else 4, version)
            out.write(data or b"")
        else:
            if in_range(field.get("nullableVersions"), version):
                out.write(b"\xff" if value is None else b"\1")
            if value is not None:
                self._write_struct(out, self.structs[kind], value, version)

    def _field_flexible(self, field, version):
        own = field.get("flexibleVersions")
        return in_range(own, version) if own else self.flexible(version)

    def _write_length(self, out, field, length, size, version):
        if self._field_flexible(field, version):
            out.write(uvarint(0 if length is None else length + 1))
        else:
            out.write(struct.pack(">h" if size == 2 else ">i", -1 if length is None else length))

    # reading

    def _read_struct(self, reader, fields, version):
        body, tags = {}, {}
        for field in fields:
            if in_range(field["versions"], version):
                if in_range(field.get("taggedVersions"), version):
                    tags[field["tag"]] = field
                    body[field["name"]] = default_of(field, version)
                else:
                    body[field["name"]] = self._read(reader, field, field["type"], version)
        if self.flexible(version):
            for _ in range(reader.uvarint()):
                tag, part = reader.uvarint(), Reader(reader.take(reader.uvarint()))
                if tag in tags:
                    body[tags[tag]["name"]] = self._read(part, tags[tag], tags[tag]["type"], version)
                else:
                    body.setdefault("_tags", []).append((tag, part.data.hex()))
        return body

    def _read(self, reader, field, kind, version):
        if kind.startswith("[]"):
            length = self._read_length(reader, field, 4, version)
            if length is None:
                return None
            if length > len(reader.data) - reader.at:
                raise DecodeError(f"{field['name']}: {length} items in fewer bytes")
            return [self._read(reader, {"name": field["name"]}, kind[2:], version) for _ in range(length)]
        if kind == "bool":
            return reader.take(1) != b"\0"
        if kind in FIXED:
            return reader.fixed(FIXED[kind])
        if kind == "uuid":
            return reader.take(16).hex()
        if kind in ("string", "bytes", "records"):
            length = self._read_length(reader, field, 2 if kind == "string" else 4, version)
            if length is None:
                return None
            data = reader.take(length)
            return data.decode() if kind == "string" else data
        if in_range(field.get("nullableVersions"), version) and reader.fixed(">b") < 0:
            return None
        return self._read_struct(reader, self.structs[kind], version)

    def _read_length(self, reader, field, size, version):
        if self._field_flexible(field, version):
            length = reader.uvarint() - 1
        else:
            length = reader.fixed(">h" if size == 2 else ">i")
        return None if length < 0 else length


def default_of(field, version):
    """The schema's default for a field that a message leaves out."""
    kind, default = field["type"], field.get("default")
    if default == "null":
        return None
    if kind.startswith("[]"):
        return []
    if kind in FIXED:
        return float(default or 0) if kind == "float64" else int(str(default or 0), 0)
    if kind == "bool":
        return str(default).lower() == "true"
    if kind == "string":
        return default or ""
    if kind == "uuid":
        return ZERO_UUID
    if kind in ("bytes", "records"):
        return b""
    return None if in_range(field.get("nullableVersions"), version) else {}


def load(jar):
    """Every schema in the kafka-clients jar, by name."""
    messages = {}
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if name.startswith("common/message/") and name.endswith(".json"):
                text = re.sub(r"^\s*//.*$", "", archive.read(name).decode(), flags=re.M)
                text = re.sub(r"//[^\"\n]*$", "", text, flags=re.M)
                message = Message(json.loads(text))
                messages[message.name] = message
    return messages
