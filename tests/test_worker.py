"""The worker's loop on both logs and both stores: joins and leaves, outages, poison, and an orderly end."""

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from backends.log import OffsetOutOfRange, Producer, TopicPartition, open_admin, open_producer
from backends.store.catalog import Flow
from backends.store.counting import Counting
from backends.store.engine import open_engine
from backends.store.migrate import migrate
from backends.store.queries import Queries
from schemas import records
from schemas.ids import partition_of
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres
from tests.working import Working, until, working
from tests.worlds import NOW, analytics, chosen_range, envelope, event, make_flows

PARTITIONS = 4
DAY = 86_400_000


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


class Tenants:
    """Organisations, enough for all partitions, and how many views each was sent."""

    def __init__(self, engine: sa.Engine, producer: Producer, topic: str, number: int = 8) -> None:
        self._engine = engine
        self.producer = producer
        self._topic = topic
        self.flows: list[Flow] = [make_flows(engine, [1])[1][0] for _ in range(number)]
        self.sent = 0

    def send(self, each: int = 5) -> None:
        """That many views of every organisation's flow, a record each."""
        written = [
            self.producer.produce(
                self._topic,
                partition_of(flow.organisation, PARTITIONS),
                records.encode(envelope(flow.organisation, event(flow=flow.flow_id))),
            )
            for _ in range(each)
            for flow in self.flows
        ]
        for done in written:
            done.result(20)
        self.sent += each

    def counted(self) -> bool:
        return Counting(self._engine).ledger().get("consumed", 0) == self.sent * len(self.flows)

    def check(self) -> None:
        """Every view is counted, each once."""
        total = self.sent * len(self.flows)
        assert Counting(self._engine).ledger() == {"consumed": total, "counted": total}
        start = NOW // DAY * DAY
        views = [analytics(self._engine, f, chosen_range(start, start + DAY))["totals"]["views"] for f in self.flows]
        assert views == [self.sent] * len(self.flows)


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


def test_an_offset_that_the_log_no_longer_has_stops_the_worker(
    log_url: str, topic: str, engine: sa.Engine, tenants: Tenants
) -> None:
    tenants.send(1)
    Counting(engine).offsets({TopicPartition(topic, p): 1000 for p in range(PARTITIONS)})
    stuck = Working(engine, log_url, [topic], "g" + topic)
    until(stuck.ended)
    assert isinstance(stuck.error, OffsetOutOfRange)
    assert Counting(engine).ledger() == {}


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
