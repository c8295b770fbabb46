"""A raw connection to a broker: frames, headers, and requests by name and version."""

import glob
import os
import socket
import struct
import time

from . import schema

CLIENT_ID = "compat"


def find_jar():
    """The kafka-clients jar that fetch-kafka.sh copied; KAFKA_LIBS says where."""
    found = glob.glob(os.path.join(os.environ["KAFKA_LIBS"], "kafka-clients-*.jar"))
    if not found:
        raise SystemExit("no kafka-clients jar in $KAFKA_LIBS: run fetch-kafka.sh")
    return found[0]


class Closed(Exception):
    """The broker closed the connection."""


class Silent(Exception):
    """No answer within the time allowed."""


class Wire:
    """The schemas, and what is needed to frame a request and read its response."""

    def __init__(self, jar=None):
        self.messages = schema.load(jar or find_jar())
        self.by_key = {m.api_key: m for m in self.messages.values() if m.name.endswith("Request") and m.api_key is not None}

    def request(self, api):
        return self.messages[api + "Request"]

    def response(self, api):
        return self.messages[api + "Response"]

    def header(self, key, version, correlation, client_id=CLIENT_ID, flexible=False, tags=b"\0"):
        """A request header v1, or v2 if flexible. `client_id` may be None, str, bytes or Raw (with its length)."""
        out = struct.pack(">hhi", key, version, correlation)
        if isinstance(client_id, schema.Raw):
            out += client_id
        elif client_id is None:
            out += b"\xff\xff"
        else:
            data = client_id.encode() if isinstance(client_id, str) else client_id
            out += struct.pack(">h", len(data)) + data
        return out + (tags if flexible else b"")

    def frame(self, api, version, body, correlation=1, client_id=CLIENT_ID, as_version=None, header_tags=b"\0"):
        """A whole frame. `body` is a dict or bytes; `as_version` writes another number into the header."""
        message = self.request(api)
        payload = body if isinstance(body, bytes) else message.encode(body, version)
        number = version if as_version is None else as_version
        head = self.header(message.api_key, number, correlation, client_id, message.flexible(version), header_tags)
        return framed(head + payload)

    def parse(self, api, version, data):
        """The body of a response frame; ApiVersions' response header is never flexible."""
        reader = schema.Reader(data)
        correlation = reader.fixed(">i")
        message = self.response(api)
        if message.flexible(version) and api != "ApiVersions":
            for _ in range(reader.uvarint()):
                reader.uvarint()
                reader.take(reader.uvarint())
        body = message.decode(reader, version)
        if reader.at != len(data):
            body["_trailing"] = data[reader.at :].hex()[:64]
        return correlation, body


def framed(payload):
    """The payload behind its four-byte length."""
    return struct.pack(">i", len(payload)) + payload


class Connection:
    """One TCP connection."""

    def __init__(self, wire, address, timeout=15.0):
        host, _, port = address.rpartition(":")
        self.wire, self.correlation = wire, 0
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        self.socket.close()

    def send_raw(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what the broker thinks of it is read, not written

    def receive(self, timeout=15.0):
        """The next frame's payload. Raises Closed at the end of the stream and Silent at the deadline."""
        deadline = time.monotonic() + timeout
        (size,) = struct.unpack(">i", self._exactly(4, deadline))
        if size < 4 or size > 200 << 20:
            raise schema.DecodeError(f"response length {size}")
        return self._exactly(size, deadline)

    def _exactly(self, count, deadline):
        data = bytearray()
        while len(data) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Silent
            self.socket.settimeout(left)
            try:
                part = self.socket.recv(min(count - len(data), 1 << 20))
            except TimeoutError:
                raise Silent from None
            except (ConnectionResetError, BrokenPipeError):
                raise Closed from None
            if not part:
                raise Closed
            data += part
        return bytes(data)

    def start(self, api, version, body, **options):
        """Sends a request without waiting for its answer; returns its correlation id."""
        self.correlation += 1
        self.send_raw(self.wire.frame(api, version, body, self.correlation, **options))
        return self.correlation

    def finish(self, api, version, timeout=15.0):
        """Reads the answer of the oldest request in flight."""
        _, body = self.wire.parse(api, version, self.receive(timeout))
        return body

    def call(self, api, version, body, timeout=15.0, **options):
        self.start(api, version, body, **options)
        return self.finish(api, version, timeout)
