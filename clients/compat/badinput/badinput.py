"""Sends every bad input of the table, judges the reply or close, and checks that a good client beside it is served.

Invariant: a row passes only if its own outcome is one of the allowed ones and the good client's round trip after it works.
"""

import argparse
import fnmatch
import pathlib
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

import bodies  # noqa: E402
import frames  # noqa: E402
import records  # noqa: E402
import stall  # noqa: E402
from wire import batch  # noqa: E402
from wire.client import Closed, Connection, Silent, Wire  # noqa: E402
from wire.schema import DecodeError  # noqa: E402


class Good:
    """A client that behaves: its latency while others do not is what the suite protects."""

    def __init__(self, wire, address, run):
        self.wire, self.address, self.topic = wire, address, f"good-{run}"
        self.worst, self.connection = 0.0, None

    def setup(self):
        for _ in range(50):
            c = Connection(self.wire, self.address)
            c.call("CreateTopics", 5, {"Topics": [{"Name": self.topic, "NumPartitions": 1, "ReplicationFactor": 1}], "timeoutMs": 10000})
            c.call("FindCoordinator", 3, {"Key": self.topic, "KeyType": 0})  # creates the offsets topic
            c.close()
            if self.round_trip() is None:
                self.worst = 0.0
                return
            time.sleep(0.2)
        raise SystemExit(f"no good client can be served: {self.round_trip()}")

    def round_trip(self):
        """Produce and fetch one record; None, or what went wrong."""
        try:
            self.connection = self.connection or Connection(self.wire, self.address, 10)
            started = time.monotonic()
            data = batch.batch([(b"k", b"v")], timestamp=int(time.time() * 1000))
            answer = self.connection.call("Produce", 9, {"Acks": -1, "TimeoutMs": 10000, "TopicData": [
                {"Name": self.topic, "PartitionData": [{"Index": 0, "Records": data}]}]}, 10)
            part = answer["Responses"][0]["PartitionResponses"][0]
            fetched = self.connection.call("Fetch", 12, {"MaxWaitMs": 1000, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionEpoch": -1, "Topics": [
                {"Topic": self.topic, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "FetchOffset": part["BaseOffset"], "PartitionMaxBytes": 1 << 20}]}]}, 10)
            self.worst = max(self.worst, time.monotonic() - started)
            if part["ErrorCode"] or not batch.parse(fetched["Responses"][0]["Partitions"][0]["Records"]):
                return f"error {part['ErrorCode']}"
            return None
        except (OSError, Closed, Silent, DecodeError, IndexError) as error:
            self.connection = None
            return repr(error)


def outcome(function, *arguments):
    """What a row's function saw: its own word, or how the connection ended."""
    try:
        return function(*arguments)
    except Closed:
        return "closed"
    except (BrokenPipeError, ConnectionResetError):
        return "closed"
    except Silent:
        return "silent"
    except (DecodeError, UnicodeDecodeError) as error:
        return f"undecodable answer: {error}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server")
    parser.add_argument("--pid", type=int, help="the broker's process, for its memory")
    parser.add_argument("--only", default="*")
    parser.add_argument("--skip-stall", action="store_true")
    options = parser.parse_args()
    wire, run = Wire(), f"{int(time.time()) & 0xFFFFFFF:x}"
    good = Good(wire, options.server, run)
    good.setup()
    before = stall.resident(options.pid)
    passed = failed = 0
    for module in (frames, records, bodies):
        for item, name, allowed, function in module.ROWS:
            if not fnmatch.fnmatch(f"{item} {name}", options.only):
                continue
            started = time.monotonic()
            saw = outcome(function, wire, options.server, good)
            took, well = time.monotonic() - started, good.round_trip()
            ok = str(saw) in allowed.split("|") or "any answer" in allowed and str(saw).lstrip("-").isdigit()
            if ok and well is None:
                passed += 1
            else:
                failed += 1
                print(f"FAILED {item} {name}: wanted {allowed}, saw {saw} after {took:.1f} s; good client: {well or 'fine'}", flush=True)
    if before is not None:
        print(f"memory: {before >> 20} MiB before, {stall.resident(options.pid) >> 20} MiB after; good client's slowest round trip {good.worst * 1000:.0f} ms")
    if not options.skip_stall and fnmatch.fnmatch("stall", options.only) or options.only == "*" and not options.skip_stall:
        for name, ok, detail in stall.run(wire, options.server, good, options.pid):
            passed, failed = passed + ok, failed + (not ok)
            print(f"{'passed' if ok else 'FAILED'} {name}: {detail}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    threading.stack_size(256 << 10)
    sys.exit(main())
