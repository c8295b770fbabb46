"""Starts and ends the brokers that are compared. Each runs alone in a directory of its own and is ended by its process id."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import wire


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """One broker process. `started` is the monotonic time just before exec."""

    name = ""

    def __init__(self, root=None):
        self.root = pathlib.Path(root or tempfile.mkdtemp(prefix="madang-perf-"))
        self.port = free_port()
        self.process = None
        self.started = 0.0

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        log = open(self.root / "log.txt", "ab")
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=self.environment())
        log.close()
        return self

    def environment(self):
        return None

    def ready(self):
        """Waits until a produce is acknowledged; returns the seconds since exec."""
        wire.first_ack(self.port, "ready")
        return time.monotonic() - self.started

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()

    def remove(self):
        if self.process and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def command(self):
        raise NotImplementedError


class Madang(Broker):
    name = "madang"

    def __init__(self, binary, durability="page-cache", root=None):
        super().__init__(root)
        self.binary, self.durability = binary, durability

    def command(self):
        return [
            self.binary, "start", "--data", str(self.root / "data"), "--listen", f"127.0.0.1:{self.port}",
            "--set", f"madang.durability={self.durability}", "--set", "madang.admin.listener=127.0.0.1:0",
        ]  # fmt: skip

    def environment(self):
        return {**os.environ, "MADANG_LOG": os.environ.get("MADANG_LOG", "warn")}


class Kafka(Broker):
    """Apache Kafka, a combined node. `sync` makes it sync each batch before it answers."""

    name = "kafka"

    def __init__(self, libs, sync=False, root=None):
        super().__init__(root)
        self.libs, self.controller = libs, free_port()
        lines = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self.controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self.root / "data",
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
        }
        if sync:
            lines["log.flush.interval.messages"] = 1
        self.properties = self.root / "server.properties"
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        subprocess.run(
            ["java", "-cp", f"{libs}/*", "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk",
             "-c", self.properties, "--standalone"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def command(self):
        return ["java", "-Xmx1G", "-Xms1G", "-XX:+UseG1GC", "-cp", f"{self.libs}/*", "kafka.Kafka", str(self.properties)]
