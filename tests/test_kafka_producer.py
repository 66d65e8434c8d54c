"""The producer on Kafka over an outage longer than its own patience: it goes on, and nothing waits for ever."""

import threading
import uuid
from concurrent.futures import Future
from contextlib import closing, suppress

import pytest

from backends.log import LogError, LogUnavailable, Producer, open_admin, open_producer
from tests.servers.kafka import Kafka
from tests.working import until


@pytest.fixture
def topic(private_kafka: Kafka) -> str:
    name = f"p.{uuid.uuid4().hex}"
    with closing(open_admin(f"kafka://{private_kafka.servers}")) as admin:
        admin.create_topic(name, 4, 1)
    return name


def answers(producer: Producer, topic: str) -> bool:
    with suppress(LogError):
        producer.partitions(topic)
        return producer.produce(topic, 0, b"after").result(30) >= 0
    return False


def ended(records: list["Future[int]"]) -> bool:
    return all(record.done() for record in records)


def senders() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "kafka-log"}


@pytest.mark.usefixtures("hasty_delivery")
def test_records_that_ran_out_of_time_do_not_end_the_producer(private_kafka: Kafka, topic: str) -> None:
    producer = open_producer(f"kafka://{private_kafka.servers}")
    try:
        producer.partitions(topic)
        assert producer.produce(topic, 0, b"before").result(30) == 0
        private_kafka.kill()
        lost = [producer.produce(topic, partition, b"lost") for partition in range(4) for _ in range(5)]
        until(lambda: ended(lost))
        assert all(isinstance(record.exception(), LogUnavailable) for record in lost)
        private_kafka.start()
        until(lambda: answers(producer, topic))
    finally:
        producer.close(5)


def test_closed_while_kafka_is_away_it_fails_what_waits_and_leaves_no_thread(private_kafka: Kafka, topic: str) -> None:
    before = senders()
    producer = open_producer(f"kafka://{private_kafka.servers}")
    producer.partitions(topic)
    private_kafka.kill()
    waiting = [producer.produce(topic, 0, b"waits") for _ in range(5)]
    producer.close(0.5)
    until(lambda: ended(waiting))
    assert all(isinstance(record.exception(), LogUnavailable) for record in waiting)
    until(lambda: senders() <= before)
