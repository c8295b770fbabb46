"""A few bytes of Kafka's protocol, enough to create a topic and to produce. Owns no retry policy: callers decide.

One fixed record batch is built once and sent again and again, so the client costs next to nothing."""

import socket
import struct
import time

_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte >> 1) ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _varint(value):
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value & ~0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def batch(records, size):
    """A record batch of `records` records with values of `size` bytes, no compression."""
    body = bytearray()
    for delta in range(records):
        record = b"\0" + _varint(0) + _varint(delta) + _varint(-1) + _varint(size) + b"x" * size + _varint(0)
        body += _varint(len(record)) + record
    now = int(time.time() * 1000)
    tail = struct.pack(">hiqqqhii", 0, records - 1, now, now, -1, -1, -1, records) + bytes(body)
    return struct.pack(">qiibI", 0, len(tail) + 9, 0, 2, crc32c(tail)) + tail


def _string(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def frame(key, version, body, correlation=1):
    data = struct.pack(">hhi", key, version, correlation) + _string("perf") + body
    return struct.pack(">i", len(data)) + data


def metadata(topic):
    """Metadata v4 for one topic, which is created if it is not there."""
    return frame(3, 4, struct.pack(">i", 1) + _string(topic) + b"\1")


def create_topic(topic, partitions):
    body = struct.pack(">i", 1) + _string(topic) + struct.pack(">ihii", partitions, 1, 0, 0) + struct.pack(">i", 30000)
    return frame(19, 2, body + b"\0")


def produce(topic, data, partitions=(0,), acks=-1):
    """Produce v3 of the same batch to each partition."""
    parts = b"".join(struct.pack(">ii", number, len(data)) + data for number in partitions)
    body = struct.pack(">hhii", -1, acks, 30000, 1) + _string(topic) + struct.pack(">i", len(partitions)) + parts
    return frame(0, 3, body)


def fetch(topic, partition, offset=0):
    """Fetch v4 of up to 1 MiB."""
    body = struct.pack(">iiiib", -1, 500, 1, 1 << 20, 0) + struct.pack(">i", 1) + _string(topic)
    return frame(1, 4, body + struct.pack(">iiqi", 1, partition, offset, 1 << 20))


def receive(connection):
    """One answer without its length prefix. Raises OSError if the connection ends."""
    head = _exactly(connection, 4)
    return _exactly(connection, struct.unpack(">i", head)[0])


def _exactly(connection, length):
    data = bytearray()
    while len(data) < length:
        more = connection.recv(min(1 << 20, length - len(data)))
        if not more:
            raise OSError("connection closed")
        data += more
    return bytes(data)


def connect(port, deadline=60.0):
    """Connects, trying again each millisecond."""
    until = time.monotonic() + deadline
    while True:
        connection = socket.socket()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connection.connect(("127.0.0.1", port))
            connection.settimeout(30)
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.001)


def produce_errors(answer, topic):
    """The error codes of a Produce v3 answer for one topic."""
    at = 4 + 4 + 2 + len(topic.encode())
    (count,) = struct.unpack_from(">i", answer, at)
    return [struct.unpack_from(">ih", answer, at + 4 + 22 * number)[1] for number in range(count)]


def metadata_error(answer):
    """The topic's error code in a Metadata v4 answer that names one topic."""
    at = 8  # correlation id, throttle
    (brokers,) = struct.unpack_from(">i", answer, at)
    at += 4
    for _ in range(brokers):
        at += 4
        (length,) = struct.unpack_from(">h", answer, at)
        at += 2 + length + 4
        (rack,) = struct.unpack_from(">h", answer, at)
        at += 2 + max(rack, 0)
    (cluster,) = struct.unpack_from(">h", answer, at)
    at += 2 + max(cluster, 0) + 4 + 4
    return struct.unpack_from(">h", answer, at)[0]


def first_ack(port, topic, deadline=60.0):
    """Makes sure the topic exists and produces one record; returns when it is acknowledged. Any error is tried again."""
    until = time.monotonic() + deadline
    data = batch(1, 100)
    while time.monotonic() < until:
        try:
            connection = connect(port, deadline)
            with connection:
                while True:
                    connection.sendall(produce(topic, data))
                    if produce_errors(receive(connection), topic) == [0]:
                        return
                    connection.sendall(metadata(topic))
                    receive(connection)
                    time.sleep(0.001)
        except OSError:
            time.sleep(0.001)
    raise TimeoutError("no acknowledgement")
