"""What the programs of the order pipeline share: the broker, the topic, and an order as it travels, the same JSON as in Rust and Java."""

import json
import os

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

SERVER = os.environ.get("MADANG_SERVER", "127.0.0.1:9092")
CUSTOMERS = ["ann", "bob", "cat", "dan"]
ITEMS = [("lamp", 2_500), ("chair", 4_000), ("desk", 12_000)]


def ensure_topic(topic):
    """Creates the topic unless it exists: the programs are started in any order."""
    admin = AdminClient({"bootstrap.servers": SERVER})
    try:
        admin.create_topics([NewTopic(topic, 3)])[topic].result(30)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def sample(source, number):
    """A made-up order."""
    item, price = ITEMS[number % len(ITEMS)]
    return {
        "id": f"{source}-{number}",
        "customer": CUSTOMERS[number % len(CUSTOMERS)],
        "item": item,
        "quantity": 1 + number % 2,
        "price_cents": price,
    }


def encode(order):
    """The order as the value of a record."""
    return json.dumps(order).encode()
