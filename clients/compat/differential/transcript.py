"""What a scenario holds: connections to one broker, and the record of every answer it got."""

import time

from wire import batch
from wire.client import Closed, Connection, Silent
from wire.schema import DecodeError


class Transcript:
    """Scenarios call `send`; each call appends (label, api, version, answer) to `entries`."""

    def __init__(self, wire, address, run, base_time):
        self.wire, self.address, self.run, self.base_time = wire, address, run, base_time
        self.entries, self.connections, self.created = [], {}, []

    def close(self):
        """Deletes the topics this scenario made and closes its connections."""
        try:
            if self.created:
                c = Connection(self.wire, self.address)
                c.call("DeleteTopics", 5, {"TopicNames": self.created, "TimeoutMs": 5000})
                c.close()
        except (OSError, Closed, Silent, DecodeError):
            pass
        for connection in self.connections.values():
            connection.close()

    def name(self, stem):
        """A name that both brokers see alike and that no other run uses."""
        return f"d{self.run}-{stem}"

    def connection(self, conn):
        if conn not in self.connections:
            self.connections[conn] = Connection(self.wire, self.address)
        return self.connections[conn]

    def forget(self, conn):
        """Drops a connection, so that the next use opens a new one."""
        if conn in self.connections:
            self.connections.pop(conn).close()

    def start(self, api, version, body, conn="main", **options):
        self.connection(conn).start(api, version, body, **options)

    def finish(self, label, api, version, conn="main", timeout=15.0, quiet=False):
        """Reads one answer and records it. A closed or silent connection is an answer too."""
        try:
            answer = self.connection(conn).finish(api, version, timeout)
        except Closed:
            answer = {"_closed": True}
        except Silent:
            answer = {"_silent": True}
        except DecodeError as error:
            answer = {"_undecodable": str(error)}
        if "_closed" in answer or "_silent" in answer or "_undecodable" in answer:
            self.forget(conn)
        if not quiet:
            self.entries.append((label, api, version, answer))
        return answer

    def send(self, label, api, version, body, conn="main", timeout=15.0, quiet=False, **options):
        self.start(api, version, body, conn, **options)
        return self.finish(label, api, version, conn, timeout, quiet)

    # common steps, not recorded

    def topic(self, stem, partitions=1, configs=()):
        """Creates a topic and waits until its leader answers. Returns its name."""
        name = self.name(stem)
        self.created.append(name)
        body = {"Topics": [{"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1,
                            "Configs": [{"Name": k, "Value": v} for k, v in configs]}], "timeoutMs": 10000}
        self.send("create", "CreateTopics", 5, body, quiet=True)
        self.wait_leader(name, partitions)
        return name

    def wait_leader(self, name, partitions=1):
        for _ in range(100):
            answer = self.send("leader", "Metadata", 9, {"Topics": [{"Name": name}], "AllowAutoTopicCreation": False}, quiet=True)
            topic = answer.get("Topics", [{}])[0]
            parts = topic.get("Partitions", [])
            if len(parts) >= partitions and all(p["ErrorCode"] == 0 for p in parts):
                probe = self.send("probe", "ListOffsets", 5, {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [
                    {"PartitionIndex": i, "Timestamp": -1} for i in range(partitions)]}]}, quiet=True)
                if all(p["ErrorCode"] == 0 for t in probe.get("Topics", []) for p in t["Partitions"]):
                    return
            time.sleep(0.05)

    def topic_id(self, name):
        answer = self.send("id", "Metadata", 12, {"Topics": [{"Name": name}], "AllowAutoTopicCreation": False}, quiet=True)
        return answer["Topics"][0]["TopicId"]

    def fill(self, topic, count=3, partition=0, **options):
        """Produces `count` one-record batches, a second apart in their timestamps."""
        for index in range(count):
            data = batch.batch([(b"k%d" % index, b"v%d" % index)], timestamp=self.base_time + index * 1000, **options)
            self.produce("fill", topic, data, partition=partition, quiet=True)

    def produce(self, label, topic, data, version=9, acks=-1, partition=0, topic_id=None, quiet=False, **options):
        entry = {"PartitionData": [{"Index": partition, "Records": data}]}
        if version >= 13:
            entry["TopicId"] = topic_id
        else:
            entry["Name"] = topic
        return self.send(label, "Produce", version, {"Acks": acks, "TimeoutMs": 5000, "TopicData": [entry]}, quiet=quiet, **options)

    def warm_up(self):
        """Waits until the broker has its coordinators and its first block of producer ids."""
        self.coordinator("warm-up")
        for _ in range(100):
            if self.send("ids", "InitProducerId", 4, {"TransactionalId": None, "TransactionTimeoutMs": 60000}, quiet=True).get("ErrorCode") == 0:
                return
            time.sleep(0.1)

    def coordinator(self, group):
        """Waits until the group's coordinator is ready."""
        for _ in range(150):
            answer = self.send("find", "FindCoordinator", 3, {"Key": group, "KeyType": 0}, quiet=True)
            if answer.get("ErrorCode") == 0:
                probe = self.send("ready", "OffsetFetch", 5, {"GroupId": group, "Topics": None}, quiet=True)
                if probe.get("ErrorCode") == 0:
                    return
            time.sleep(0.1)
