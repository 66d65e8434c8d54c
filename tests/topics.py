"""Removes a topic and makes one of the same name, as an operator might."""

import time
from contextlib import closing

from kafka import KafkaAdminClient

from backends.log import open_admin
from backends.log.sqlite import connect, transaction

ENOUGH_SECONDS = 20.0


def make_anew(log_url: str, topic: str, partitions: int) -> None:
    if log_url.startswith("kafka://"):
        with closing(KafkaAdminClient(bootstrap_servers=log_url.removeprefix("kafka://"))) as client:
            client.delete_topics([topic])
    else:
        with closing(connect(log_url.removeprefix("sqlite:///"))) as connection, transaction(connection) as c:
            for table in ("topics", "ends", "records"):
                c.execute(f"DELETE FROM {table} WHERE topic = ?", (topic,))
    deadline = time.monotonic() + ENOUGH_SECONDS
    with closing(open_admin(log_url)) as admin:
        while not admin.create_topic(topic, partitions, 1):  # Kafka removes a topic a moment later than it says
            assert time.monotonic() < deadline
            time.sleep(0.05)
