"""Makes two brokers' answers comparable: what each may choose freely becomes a symbol in order of appearance.

Lists whose items have a natural key become dicts by that key, because their order is no promise. Fetched records are
decoded. Names of other runs' topics and groups are dropped.
"""

from wire import batch

KEYS = ["ApiKey", "Name", "Topic", "TopicName", "PartitionIndex", "Partition", "Index", "GroupId", "MemberId", "NodeId", "BrokerId", "ResourceName", "Key", "TopicId"]
SYMBOLS = {
    "TopicId": "topic-id", "MemberId": "member", "Leader": "member", "ProducerId": "producer", "Pid": "producer", "SessionId": "session",
    "ClusterId": "cluster", "NodeId": "node", "LeaderId": "node", "ControllerId": "node", "BrokerId": "node", "CurrentLeader": "node",
    "Port": "port", "Host": "host", "ClientHost": "host",
}
NODE_LISTS = {"ReplicaNodes", "IsrNodes", "Replicas", "Isr"}
UNSET = {"", None, -1, 0, "00" * 16}
KEEP_ZERO = {"NodeId", "LeaderId", "ControllerId", "BrokerId", "ProducerId", "Pid"}
DROPPED = {"Crc", "FinalizedFeaturesEpoch"}
# Configurations that say where a node lives, not how it behaves.
PLACES = {"listeners", "advertised.listeners", "log.dir", "log.dirs", "metadata.log.dir", "node.id", "broker.id", "controller.quorum.bootstrap.servers"}


class Normaliser:
    """One scenario's answers of one broker."""

    def __init__(self, run):
        self.run, self.seen = run, {}

    def symbol(self, kind, value):
        if kind == "topic-id" and value == value[:2] * 16:
            return value  # made up by a scenario, so the same on both sides
        known = self.seen.setdefault(kind, {})
        return f"<{kind}#{known.setdefault(value, len(known) + 1)}>"

    def value(self, name, value):
        if isinstance(value, dict):
            value = {k: self.value(k, v) for k, v in value.items() if k not in DROPPED}
            if value.get("Name") in PLACES and value.get("Value"):
                value["Value"] = "<place>"
            return value
        if name == "Records" and isinstance(value, bytes):
            return self.value("Batches", batch.parse(value))
        if isinstance(value, bytes):
            return self.text(value.hex())
        if isinstance(value, list):
            return self.items(name, value)
        if name in SYMBOLS and not isinstance(value, bool):
            if name in KEEP_ZERO and value == 0 or value not in UNSET:
                return self.symbol(SYMBOLS[name], value)
        return self.text(value) if isinstance(value, str) else value

    def text(self, value):
        value = value.replace(self.run, "RUN")
        for kind in ("member", "topic-id"):
            for known, number in self.seen.get(kind, {}).items():
                if isinstance(known, str) and len(known) > 20:
                    value = value.replace(known.replace(self.run, "RUN"), f"<{kind}#{number}>")
        return value

    def items(self, name, values):
        if name in NODE_LISTS:
            return [self.symbol("node", v) for v in values]
        if not values or not all(isinstance(v, dict) for v in values):
            return [self.value(name, v) for v in values]
        if name == "Batches":
            return [self.value("Batch", v) for v in values]
        values = [v for v in values if not self.is_foreign(v)]
        out = {}
        for index, item in enumerate(values):
            done = self.value(name, item)
            key = self.key(item, done, index)
            while key in out:
                key += "'"
            out[key] = done
        return out

    def key(self, item, done, index):
        for key in KEYS:
            if key in item and item[key] is not None:
                return str(done[key])
        return str(index)

    def is_foreign(self, item):
        """Whether the item is a topic or group that this scenario did not make, in an answer that lists everything."""
        name, group = item.get("Name"), item.get("GroupId")
        if isinstance(name, str) and item.get("Partitions") and item.get("ErrorCode") == 0:
            return self.run not in name and name != "__consumer_offsets"
        return isinstance(group, str) and "ProtocolType" in item and "ErrorCode" not in item and self.run not in group


def entries(raw, run):
    """(label, normalised answer) for each step of a transcript."""
    normaliser = Normaliser(run)
    return [(label if api is None else f"{label}:{api}v{version}", normaliser.value(None, answer)) for label, api, version, answer in raw]
