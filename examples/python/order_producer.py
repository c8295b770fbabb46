"""Orders come in, with confluent-kafka.

    python order_producer.py [TOPIC] [COUNT]

Look at: the partitioner. Left to itself, librdkafka places keys elsewhere than clients in Java and Rust do, and one customer's orders would be in two
partitions, in no order.
"""

import sys

from confluent_kafka import Producer

from orders import SERVER, encode, ensure_topic, sample


def main():
    topic = sys.argv[1] if len(sys.argv) > 1 else "orders"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    ensure_topic(topic)
    producer = Producer({
        "bootstrap.servers": SERVER,
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
    })
    failed = []

    def answered(error, message):
        """Is called for each record once it is known what became of it."""
        if error is not None:
            failed.append(f"{message.key().decode()}: {error}")

    for number in range(1, count + 1):
        order = sample("python", number)
        producer.produce(topic, key=order["customer"], value=encode(order), on_delivery=answered)
        producer.poll(0)
    unanswered = producer.flush(60)
    if failed or unanswered:
        sys.exit(f"{unanswered} orders without an answer, {len(failed)} not written: {failed[:3]}")
    print(f"python: {count} orders written")


main()
