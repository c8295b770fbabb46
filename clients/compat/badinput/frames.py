"""Framing and request headers (items 1-19). A row: item, name, allowed outcomes joined by |, function."""

import os
import socket
import struct
import threading

from wire.client import Connection, framed

VERSIONS = {"ClientSoftwareName": "x", "ClientSoftwareVersion": "1"}


def raw(data, wait=5.0):
    """Sends bytes on a fresh connection; the answer is its length word or the end."""

    def row(wire, address, _good):
        c = Connection(wire, address)
        try:
            c.send_raw(data() if callable(data) else data)
            c.receive(wait)
            return "answered"
        finally:
            c.close()

    return row


def request(build, api="ApiVersions", version=0, wait=5.0):
    """Sends a frame made by `build(wire)`; the answer is the error code of its body."""

    def row(wire, address, _good):
        c = Connection(wire, address)
        try:
            c.send_raw(build(wire))
            _, body = wire.parse(api, version, c.receive(wait))
            return body.get("ErrorCode", 0)
        finally:
            c.close()

    return row


def pipelined(wire, address, _good):
    """10,000 ApiVersions at once: as many answers, in order."""
    c, count = Connection(wire, address), 10000
    sent = b"".join(wire.frame("ApiVersions", 0, {}, i) for i in range(count))
    writer = threading.Thread(target=c.send_raw, args=(sent,), daemon=True)
    writer.start()
    for i in range(count):
        if struct.unpack(">i", c.receive(20)[:4])[0] != i:
            return "out of order"
    c.close()
    return "answered"


def cut(end):
    """Half a frame, then FIN or RST; the good client's turn after it is the test."""

    def row(wire, address, _good):
        c = Connection(wire, address)
        c.send_raw(wire.frame("ApiVersions", 0, {})[:9])
        if end == "rst":
            c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.close()
        else:
            c.socket.shutdown(socket.SHUT_WR)
            try:
                c.receive(5)
            finally:
                c.close()
        return "closed"

    return row


def reset_in_answer(wire, address, _good):
    c = Connection(wire, address)
    for _ in range(200):
        c.start("Metadata", 1, {"Topics": None})
    c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()
    return "closed"


def same_correlation(wire, address, _good):
    c = Connection(wire, address)
    for _ in range(3):
        c.send_raw(wire.frame("ApiVersions", 0, {}, 7))
    seen = [struct.unpack(">i", c.receive(5)[:4])[0] for _ in range(3)]
    c.close()
    return "answered" if seen == [7, 7, 7] else seen


def after_unsupported(wire, address, _good):
    """ApiVersions at a version from the future answers 35 in version 0, and the connection lives on."""
    c = Connection(wire, address)
    c.start("ApiVersions", 3, VERSIONS, as_version=99)
    first = c.finish("ApiVersions", 0)["ErrorCode"]
    second = c.call("ApiVersions", 0, {})["ErrorCode"]
    c.close()
    return f"{first} {second}"


def header(tail, key=3, version=9, client=b"\0\1x"):
    return lambda wire: framed(struct.pack(">hhi", key, version, 1) + client + tail)


def length(number):
    return struct.pack(">I", number & 0xFFFFFFFF)


BODY9 = b"\1\0\0\0\0"  # Metadata v9 asking for no topic
ROWS = [
    (1, "length 0", "closed", raw(length(0))),
    (2, "length -1", "closed", raw(length(-1))),
    (3, "length 2^31-1", "closed", raw(length(2**31 - 1))),
    (4, "length 100 MiB + 1", "closed", raw(length((100 << 20) + 1))),
    (5, "body short, then silence", "silent|closed", raw(length(100) + b"\0\x12\0\0", 2)),
    (6, "one byte", "silent|closed", raw(b"\0", 2)),
    (7, "10,000 pipelined", "answered", pipelined),
    (8, "TLS ClientHello", "closed", raw(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\0" * 160)),
    (8, "TLS alert length", "closed", raw(b"\x15\x03\x03\x00\x02\x02\x28")),
    (9, "HTTP GET", "closed", raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
    (10, "SSH banner", "closed", raw(b"SSH-2.0-OpenSSH_9.6\r\n")),
    (11, "random 1 MiB", "closed|silent", raw(lambda: b"\x7f" + os.urandom(1 << 20))),
    (12, "FIN in a frame", "closed", cut("fin")),
    (12, "RST in a frame", "closed", cut("rst")),
    (12, "RST in an answer", "closed", reset_in_answer),
    (13, "key -1", "closed", request(header(b"", key=-1))),
    (13, "key 32767", "closed", request(header(b"", key=32767))),
    (13, "key of a node", "closed", request(header(b"", key=52))),
    (14, "version -1", "closed", request(header(b"\0" + BODY9, version=-1))),
    (14, "version 32767", "closed", request(header(b"\0" + BODY9, version=32767))),
    (14, "ApiVersions 99", "35 0", after_unsupported),
    (15, "client id length -2", "0|closed", request(header(b"\0" + BODY9, client=b"\xff\xfe"))),
    (15, "client id past the end", "closed", request(header(b"", client=b"\x7f\xffabc"))),
    (15, "client id 32 KiB", "0|closed", request(lambda w: w.frame("ApiVersions", 0, {}, client_id="c" * 32767))),
    (15, "client id not UTF-8", "0|closed", request(lambda w: w.frame("ApiVersions", 0, {}, client_id=b"\xff\xfe\x80"))),
    (15, "client id with NUL and newline", "0|closed", request(lambda w: w.frame("ApiVersions", 0, {}, client_id="a\nERROR fake\0"))),
    (16, "2^31 tagged fields", "0|closed", request(header(b"\x80\x80\x80\x80\x08" + BODY9))),
    (17, "tags out of order", "0|closed", request(header(b"\2\x0a\0\5\0" + BODY9), "Metadata", 9)),
    (17, "tag twice", "0|closed", request(header(b"\2\5\0\5\0" + BODY9), "Metadata", 9)),
    (17, "tag past the end", "closed", request(header(b"\1\5\xff\xff\xff\x7f" + BODY9), "Metadata", 9)),
    (18, "varint of 6 bytes", "closed", request(header(b"\xff\xff\xff\xff\xff\1" + BODY9), "Metadata", 9)),
    (18, "varint not minimal", "0|closed", request(header(b"\x80\x00" + BODY9), "Metadata", 9)),
    (19, "correlation id repeated", "answered", same_correlation),
]
