"""Bills are written for orders, with confluent-kafka: a group of its own, so it sees every order, whichever program put it in.

    python billing.py [TOPIC] [COUNT]

Look at: it ends after COUNT orders, and started again it goes on behind them. Commits come after the work: an order may come again, and none is skipped.
"""

import collections
import json
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException

from orders import SERVER, ensure_topic

# How long the service waits for the next order before it says that something is wrong.
PATIENCE = 120


def main():
    topic = sys.argv[1] if len(sys.argv) > 1 else "orders"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    ensure_topic(topic)
    consumer = Consumer({
        "bootstrap.servers": SERVER,
        "group.id": f"{topic}-billing",
        # A new group begins with the first order, not with the next.
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    consumer.subscribe([topic])
    try:
        bill(consumer, count)
    finally:
        # Others of the group, if there are any, take over at once.
        consumer.close()


def bill(consumer, count):
    done, owed, records = set(), collections.Counter(), 0
    give_up = time.monotonic() + PATIENCE
    while len(done) < count:
        message = consumer.poll(1)
        if message is None:
            if time.monotonic() > give_up:
                sys.exit(f"{len(done)} of {count} orders came, and no more in {PATIENCE} s")
            continue
        if message.error():
            # The topic is so new that not every broker knows it yet; the next poll asks again.
            if message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART or message.error().retriable():
                continue
            raise KafkaException(message.error())
        give_up = time.monotonic() + PATIENCE
        records += 1
        try:
            order = json.loads(message.value())
            cents = order["quantity"] * order["price_cents"]
            if order["id"] not in done:
                owed[order["customer"]] += cents
                done.add(order["id"])
                print(f"billing: {order['id']} costs {order['customer']} {cents} cents", flush=True)
        except (ValueError, KeyError, TypeError) as error:
            # What nobody can read must not stop everything behind it.
            print(f"partition {message.partition()} at {message.offset()} is no order: {error!r}", file=sys.stderr)
        consumer.commit(message, asynchronous=False)
    for customer in sorted(owed):
        print(f"billing: {customer} {owed[customer]}")
    print(f"billing: {len(done)} orders in {records} records")


main()
