"""Madang beside Apache Kafka on this machine: broker CPU, throughput, memory, start. Prints Markdown tables.

Runs alternate between the two brokers and ratios are taken pair by pair, so that a noisy neighbour hits both."""

import argparse
import os
import platform
import re
import socket
import statistics
import subprocess
import threading
import time

import process
import wire
from node import Kafka, Madang

GIB = 1 << 30
RECORD = 1024
PARTITIONS = 6


def main():
    options = arguments()
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {cpu_model()}, {os.cpu_count()} CPUs, Linux {platform.release()}, "
          f"load {os.getloadavg()[0]:.2f} at the start")  # fmt: skip
    wanted = options.only.split(",") if options.only else ["load", "fsync", "memory", "start"]
    if "load" in wanted:
        load(options, "page-cache")
    if "fsync" in wanted:
        load(options, "fsync")
    if "memory" in wanted:
        memory(options)
    if "start" in wanted:
        start(options)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--madang", required=True, help="the binary, built with --release")
    parser.add_argument("--kafka", help="the folder of Kafka's jars; without it Madang is measured alone")
    parser.add_argument("--client-jars", help="jars to run the Java producer from; default: those of --kafka")
    parser.add_argument("--records", type=int, default=2_000_000, help="records of 1 KiB to a run")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each broker")
    parser.add_argument("--rounds", type=int, default=50, help="starts to measure")
    parser.add_argument("--only", help="any of load,fsync,memory,start")
    options = parser.parse_args()
    options.client_jars = options.client_jars or options.kafka
    return options


def cpu_model():
    with open("/proc/cpuinfo") as info:
        return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "unknown CPU")


def brokers(options, durability):
    found = [Madang(options.madang, durability)]
    if options.kafka:
        found.append(Kafka(options.kafka, sync=durability == "fsync"))
    return found


def load(options, durability):
    """Java producer in, kcat out."""
    records = options.records if durability == "page-cache" else max(options.records // 4, 100_000)
    results = {}
    for pair in range(options.pairs):
        # The order turns round with each pair.
        for broker in brokers(options, durability)[:: 1 if pair % 2 == 0 else -1]:
            try:
                results.setdefault(broker.name, []).append(one_load(options, broker.start(), records))
            finally:
                broker.remove()
    print(f"\n{durability}: {options.pairs} runs each of {records} records of 1 KiB, {PARTITIONS} partitions\n")
    print("| | produce, broker CPU s/GiB | produce, MB/s | producer p99 | consume, broker CPU s/GiB | consume, MB/s |")
    print("|---|---|---|---|---|---|")
    for name, runs in results.items():
        cells = [f"{spread([run[place] for run in runs], digits)}" for place, digits in enumerate((2, 0, 0, 2, 0))]
        cells[2] += " ms"
        print(f"| {name} | " + " | ".join(cells) + " |")
    if len(results) == 2:
        pairs = list(zip(results["madang"], results["kafka"]))
        ratios = [spread([ours[place] / theirs[place] for ours, theirs in pairs if theirs[place]], 2) for place in range(5)]
        print("| ratio | " + " | ".join(ratios) + " |", flush=True)


def one_load(options, broker, records):
    broker.ready()
    with wire.connect(broker.port) as admin:
        admin.sendall(wire.create_topic("load", PARTITIONS))
        wire.receive(admin)
    time.sleep(0.5)
    gib = records * RECORD / GIB
    # Warm up, for the broker's compiler more than for ours.
    java_producer(options, broker, max(records // 10, 50_000))
    before = process.cpu_seconds(broker.pid)
    produced, p99 = java_producer(options, broker, records)
    produce_cpu = process.cpu_seconds(broker.pid) - before
    consume(broker)
    before, began = process.cpu_seconds(broker.pid), time.monotonic()
    read = consume(broker)
    consume_cpu, took = process.cpu_seconds(broker.pid) - before, time.monotonic() - began
    read_gib = read * RECORD / GIB
    return produce_cpu / gib, produced, p99, consume_cpu / read_gib, read * RECORD / 1e6 / took


def java_producer(options, broker, records):
    """MB/s and the 99th percentile in ms, as Kafka's own tool reports them."""
    ran = subprocess.run(
        ["java", "-Xmx512m", "-cp", f"{options.client_jars}/*", "org.apache.kafka.tools.ProducerPerformance",
         "--topic", "load", "--num-records", str(records), "--record-size", str(RECORD), "--throughput", "-1",
         "--producer-props", f"bootstrap.servers=127.0.0.1:{broker.port}", "acks=all", "linger.ms=5",
         "batch.size=131072"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    last = ran.stdout.strip().splitlines()[-1]
    if f"{records} records sent" not in last:
        raise RuntimeError(f"{broker.name}: the producer did not finish: {ran.stdout[-500:]} {ran.stderr[-500:]}")
    speed = re.search(r"\(([\d.]+) MB/sec\)", last)
    p99 = re.search(r"(\d+) ms 99th", last)
    return float(speed[1]), float(p99[1])


def consume(broker):
    """Reads the whole topic with kcat; returns the number of records."""
    ran = subprocess.run(
        ["kcat", "-C", "-b", f"127.0.0.1:{broker.port}", "-t", "load", "-o", "beginning", "-e", "-q", "-f", "%p\n",
         "-X", "fetch.message.max.bytes=1048576"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True,
    )  # fmt: skip
    return ran.stdout.count(b"\n")


def memory(options):
    """Resident memory: idle, and with 1,000 partitions that were each written and read."""
    print("\n| | resident idle | of it the program's own | threads | CPU s in 30 s idle "
          "| resident, 1,000 partitions written and read | after kill -9 and restart |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for broker in brokers(options, "page-cache"):
        try:
            broker.start().ready()
            time.sleep(2)
            cells = [process.resident_mib(broker.pid), process.anonymous_mib(broker.pid)]
            cells = [f"{cell:.1f} MiB" for cell in cells] + [str(process.threads(broker.pid))]
            before = process.cpu_seconds(broker.pid)
            time.sleep(30)
            cells.append(f"{process.cpu_seconds(broker.pid) - before:.2f}")
            thousand_partitions(broker.port)
            time.sleep(2)
            cells.append(f"{process.resident_mib(broker.pid):.1f} MiB")
            broker.kill()
            broker.start().ready()
            time.sleep(2)
            cells.append(f"{process.resident_mib(broker.pid):.1f} MiB")
            print(f"| {broker.name} | " + " | ".join(cells) + " |", flush=True)
        finally:
            broker.remove()


def thousand_partitions(port):
    data = wire.batch(10, 1000)
    with wire.connect(port) as connection:
        connection.settimeout(120)
        connection.sendall(wire.create_topic("many", 1000))
        wire.receive(connection)
        for first in range(0, 1000, 50):
            some = list(range(first, first + 50))
            while True:
                connection.sendall(wire.produce("many", data, some))
                if set(wire.produce_errors(wire.receive(connection), "many")) == {0}:
                    break
                time.sleep(0.1)
        for partition in range(1000):
            connection.sendall(wire.fetch("many", partition))
            if len(wire.receive(connection)) < len(data):
                raise RuntimeError(f"partition {partition} gave too little")


def start(options):
    """From exec to the first acknowledged produce: on an empty directory, and after kill -9 under load."""
    print("\n| | rounds | empty | after kill -9 under load |")
    print("|---|---|---|---|")
    for make in starters(options):
        empty, killed = [], []
        rounds = options.rounds if isinstance(probe := make(), Madang) else max(options.rounds // 10, 3)
        probe.remove()
        for _ in range(rounds):
            broker = make()
            try:
                empty.append(broker.start().ready() * 1000)
                kill_under_load(broker)
                killed.append(broker.start().ready() * 1000)
            finally:
                broker.remove()
        print(f"| {broker.name} | {rounds} | {times(empty)} | {times(killed)} |", flush=True)


def starters(options):
    return [maker(options, durability) for durability in ("fsync", "page-cache")] + (
        [lambda: Kafka(options.kafka)] if options.kafka else []
    )


def maker(options, durability):
    def make():
        broker = Madang(options.madang, durability)
        broker.name = f"madang, {durability}"
        return broker

    return make


def kill_under_load(broker, seconds=1.0):
    """Six connections that produce 64 KiB batches without a pause; kills the broker in their midst."""
    with wire.connect(broker.port) as admin:
        admin.sendall(wire.create_topic("load", PARTITIONS))
        wire.receive(admin)
    frame = wire.produce("load", wire.batch(64, 1000), range(PARTITIONS))
    stop = threading.Event()

    def push():
        try:
            with wire.connect(broker.port) as connection:
                while not stop.is_set():
                    connection.sendall(frame)
                    wire.receive(connection)
        except (OSError, socket.timeout):
            pass

    pushers = [threading.Thread(target=push) for _ in range(3)]
    for pusher in pushers:
        pusher.start()
    time.sleep(seconds)
    broker.kill()
    stop.set()
    for pusher in pushers:
        pusher.join()


def times(values):
    ordered = sorted(values)
    p90 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.9))]
    return f"median {statistics.median(ordered):.0f} ms, p90 {p90:.0f}, worst {ordered[-1]:.0f}"


def spread(values, digits):
    """Median, and the range of all."""
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    main()
