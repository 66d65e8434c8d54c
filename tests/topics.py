"""Topics made anew under their name, and records that retention removes, on both logs."""

import time
from contextlib import closing

import kafka
from kafka import KafkaAdminClient

from backends.log import TopicPartition, open_admin
from backends.log.sqlite import SqliteLogAdmin, connect, transaction

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


def remove_before(log_url: str, partition: TopicPartition, offset: int) -> None:
    """As retention does."""
    if log_url.startswith("kafka://"):
        with closing(KafkaAdminClient(bootstrap_servers=log_url.removeprefix("kafka://"))) as client:
            client.delete_records({kafka.TopicPartition(*partition): offset})
    else:
        with closing(SqliteLogAdmin(log_url.removeprefix("sqlite:///"))) as admin:
            admin.delete_before(partition, offset)
