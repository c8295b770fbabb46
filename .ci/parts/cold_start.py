"""From exec to the first acknowledged record with many partitions: after an orderly stop, and after kill -9. Prints medians in milliseconds, one line each."""

import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "clients/compat/perf"))
import wire  # noqa: E402
from node import Madang  # noqa: E402

BATCH = wire.batch(1, 100)


def main():
    binary, partitions, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    broker = Madang(binary, "fsync")
    try:
        times = {"empty": [], "clean": [], "killed": []}
        times["empty"].append(broker.start().ready())
        fill(broker, partitions)
        for _ in range(rounds):
            broker.stop()
            times["clean"].append(broker.start().ready())
            # What is written since the start is what a kill leaves open.
            write(broker, partitions)
            broker.kill()
            times["killed"].append(broker.start().ready())
    finally:
        broker.remove()
    for name, seconds in times.items():
        print(f"{name}\t{statistics.median(seconds) * 1000:.0f}\t{min(seconds) * 1000:.0f}\t{max(seconds) * 1000:.0f}\t{len(seconds)}")


def fill(broker, partitions):
    with wire.connect(broker.port) as connection:
        connection.settimeout(300)
        connection.sendall(wire.create_topic("many", partitions))
        wire.receive(connection)
    write(broker, partitions)


def write(broker, partitions):
    """One record to each partition, a thousand to a request."""
    until = time.monotonic() + 300
    with wire.connect(broker.port) as connection:
        connection.settimeout(300)
        for first in range(0, partitions, 1000):
            frame = wire.produce("many", BATCH, range(first, min(first + 1000, partitions)))
            while True:
                connection.sendall(frame)
                if set(wire.produce_errors(wire.receive(connection), "many")) == {0}:
                    break
                if time.monotonic() > until:
                    raise TimeoutError("partitions that do not serve")
                time.sleep(0.1)


if __name__ == "__main__":
    main()
