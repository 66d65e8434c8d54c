"""The worker's loop on both logs and both stores: joins and leaves, outages, poison, and an orderly end."""

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from backends.log import Producer, open_admin, open_producer
from backends.store.counting import Counting
from backends.store.engine import open_engine
from backends.store.migrate import migrate
from backends.store.queries import Queries
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres
from tests.tenants import PARTITIONS, Tenants
from tests.working import until, working


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


@pytest.fixture
def topic(log_url: str) -> str:
    name = f"w.{uuid.uuid4().hex}"
    with closing(open_admin(log_url)) as admin:
        admin.create_topic(name, PARTITIONS, 1)
    return name


@pytest.fixture
def producer(log_url: str, topic: str) -> Iterator[Producer]:
    opened = open_producer(log_url)
    opened.partitions(topic)
    yield opened
    opened.close(5)


@pytest.fixture
def tenants(engine: sa.Engine, producer: Producer, topic: str) -> Tenants:
    return Tenants(engine, producer, topic)


def test_workers_that_join_and_leave_lose_and_double_nothing(
    log_url: str, topic: str, engine: sa.Engine, tenants: Tenants
) -> None:
    group = "g" + topic
    tenants.send()
    with ExitStack() as stack:
        first = stack.enter_context(working(engine, log_url, [topic], group, records=3))
        until(tenants.counted)
        second = stack.enter_context(working(engine, log_url, [topic], group, records=3))
        tenants.send(10)
        until(lambda: len(first.held()) == len(second.held()) == PARTITIONS // 2)
        tenants.send()
        until(tenants.counted)
        first.stop()
        tenants.send()
        until(lambda: len(second.held()) == PARTITIONS)
        until(tenants.counted)
    tenants.check()


def test_poison_between_good_lines_is_set_aside_and_the_rest_counts(
    log_url: str, topic: str, engine: sa.Engine, producer: Producer, tenants: Tenants
) -> None:
    tenants.send()
    for partition in range(PARTITIONS):
        producer.produce(topic, partition, b"\x00\xff poison").result(20)
    tenants.send()
    with working(engine, log_url, [topic], "g" + topic):
        until(lambda: Counting(engine).ledger().get("consumed", 0) == tenants.sent * len(tenants.flows) + PARTITIONS)
    ledger = Counting(engine).ledger()
    assert ledger["counted"] == tenants.sent * len(tenants.flows)
    assert ledger["rejected:unreadable"] == PARTITIONS


def test_what_is_counted_is_promised_to_readers(log_url: str, topic: str, engine: sa.Engine, tenants: Tenants) -> None:
    """`processedThrough` passes the moment of the last acknowledgement, also where nothing more arrives."""
    tenants.send(1)
    acknowledged = time.time_ns() // 1_000_000
    queries = Queries(engine)
    with working(engine, log_url, [topic], "g" + topic):
        until(
            lambda: all(
                (queries.processed_through(flow.organisation, topic) or 0) > acknowledged for flow in tenants.flows
            )
        )
        tenants.check()


def test_the_store_away_is_waited_for_and_then_everything_counts_once(
    private_postgres: Postgres, tmp_path: Path
) -> None:
    engine = open_engine(f"{private_postgres.url}/postgres")
    migrate(engine)
    log_url = f"sqlite:///{tmp_path}/log.db"
    with closing(open_admin(log_url)) as admin:
        admin.create_topic("t", PARTITIONS, 1)
    producer = open_producer(log_url)
    producer.partitions("t")
    tenants = Tenants(engine, producer, "t")
    tenants.send()
    with working(engine, log_url, ["t"], "g", records=3) as worker:
        until(tenants.counted)
        private_postgres.stop()
        tenants.send()
        until(lambda: worker.worker.problem == "store is away")
        assert not worker.ended()
        private_postgres.start()
        until(tenants.counted)
        until(lambda: worker.worker.problem is None)
    tenants.check()
    producer.close(5)
    engine.dispose()


def test_kafka_away_is_waited_for_and_then_everything_counts_once(private_kafka: Kafka, postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    log_url = f"kafka://{private_kafka.servers}"
    with closing(open_admin(log_url)) as admin:
        admin.create_topic("t", PARTITIONS, 1)
    producer = open_producer(log_url)
    producer.partitions("t")
    tenants = Tenants(engine, producer, "t")
    tenants.send()
    with working(engine, log_url, ["t"], "g", records=3) as worker:
        until(tenants.counted)
        private_kafka.stop()
        until(lambda: worker.worker.problem == "log is away")
        private_kafka.start()
        fresh = open_producer(log_url)
        fresh.partitions("t")
        tenants.producer = fresh
        tenants.send()
        until(tenants.counted)
        assert not worker.ended()
    tenants.check()
    for each in (producer, fresh):
        each.close(5)
    engine.dispose()
