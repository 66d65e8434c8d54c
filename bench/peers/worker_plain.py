"""A plain loop of kafka-python and psycopg: poll, one transaction, commit."""

import time

from kafka import KafkaConsumer
from worker_store import Store, arguments

FULL_SECONDS = 0.5


def main() -> None:
    given = arguments()
    store = Store(given.database)
    consumer = KafkaConsumer(
        given.topic,
        bootstrap_servers=given.servers,
        group_id=given.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=given.records,
    )
    while True:
        values: list[bytes] = []
        deadline = time.monotonic() + FULL_SECONDS
        while len(values) < given.records and (left := deadline - time.monotonic()) > 0:
            polled = consumer.poll(timeout_ms=int(left * 1000), max_records=given.records - len(values))
            values += [record.value for records in polled.values() for record in records]
        if values:
            store.count(values)
            consumer.commit()


main()
