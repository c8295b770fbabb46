"""500 connections each announce a 50 MB frame, send a little and stall: a good client must not notice."""

import socket
import struct
import time

CONNECTIONS = 500
ANNOUNCED = 50_000_000
LATENCY_SECONDS = 0.100
MEMORY_BYTES = 64 << 20


def resident(pid):
    """Resident bytes of a process, or None."""
    if not pid:
        return None
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def run(wire, address, good, pid):
    """Yields (name, passed, detail)."""
    host, _, port = address.rpartition(":")
    good.round_trip()
    good.worst, before, held, peak = 0.0, resident(pid), [], 0
    problems = []
    try:
        for _ in range(CONNECTIONS):
            s = socket.create_connection((host, int(port)), timeout=5)
            s.sendall(struct.pack(">i", ANNOUNCED) + wire.header(0, 9, 1, flexible=True) + b"\0" * 64)
            held.append(s)
        for _ in range(50):
            problem = good.round_trip()
            if problem:
                problems.append(problem)
                if len(problems) == 3:
                    break
            peak = max(peak, resident(pid) or 0)
            time.sleep(0.02)
    except OSError as error:
        problems.append(repr(error))
    finally:
        peak = max(peak, resident(pid) or 0)
        for s in held:
            s.close()
    yield "500 stalled frames: the good client is served", not problems, problems[:1] or f"{len(held)} held"
    yield "500 stalled frames: latency", not problems and good.worst < LATENCY_SECONDS, f"slowest {good.worst * 1000:.0f} ms, limit {LATENCY_SECONDS * 1000:.0f} ms"
    if before is not None:
        yield "500 stalled frames: memory", peak - before < MEMORY_BYTES, f"grew {(peak - before) / 2**20:.1f} MiB, limit {MEMORY_BYTES >> 20} MiB"
