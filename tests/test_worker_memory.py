"""What a worker keeps of what it has written: nothing, whenever the collector of cycles comes to it."""

import gc
import uuid
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
import sqlalchemy as sa

from backends.log import Record, open_admin, open_producer
from backends.store.engine import open_engine
from service.garbage import Passed
from tests.blocking import ORGANISATIONS, holding
from tests.tenants import PARTITIONS, Tenants
from tests.working import Working, until, working
from workers.batch import Prepared


@pytest.fixture
def log_url(kafka_servers: str) -> str:
    """Kafka's: its client leaves circles behind."""
    return f"kafka://{kafka_servers}"


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(postgres_url)
    yield opened
    opened.dispose()


@contextmanager
def counted_by(engine: sa.Engine, log_url: str) -> Iterator[tuple[Working, Tenants]]:
    """A worker, and three organisations whose topic it counts."""
    topic = f"w.{uuid.uuid4().hex}"
    with closing(open_admin(log_url)) as admin:
        admin.create_topic(topic, PARTITIONS, 1)
    with ExitStack() as stack:
        producer = open_producer(log_url)
        stack.callback(producer.close, 5)
        producer.partitions(topic)
        tenants = Tenants(engine, producer, topic, number=3)
        with working(engine, log_url, [topic], "g" + topic) as worker:
            yield worker, tenants


class Circle:
    """Held by nothing but itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def no_collector() -> Iterator[None]:
    """It looks only where it is told to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_what_cycles_hold_is_given_back_after_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.garbage.PASSED_BYTES", 1000)
    passed = Passed()
    for _ in range(2):
        held = weakref.ref(Circle())
        passed.add(999)
        assert held() is not None
        passed.add(1)
        assert held() is None


@pytest.mark.usefixtures("no_collector")
def test_a_worker_that_reads_on_and_on_has_the_collector_look(
    log_url: str, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.garbage.PASSED_BYTES", 1)
    with counted_by(engine, log_url) as (_, tenants):
        held = weakref.ref(Circle())
        tenants.send(1)
        until(tenants.counted)
        assert held() is None


class Polls:
    """Counts those that brought nothing."""

    def __init__(self, worker: Working, monkeypatch: pytest.MonkeyPatch) -> None:
        self.in_vain = 0
        self._poll = worker.worker._consumer.poll
        monkeypatch.setattr(worker.worker._consumer, "poll", self)

    def __call__(self, timeout: float, most: int) -> list[Record]:
        found = self._poll(timeout, most)
        self.in_vain += not found
        return found


def test_a_batch_that_was_gathered_between_polls_in_vain_is_given_back(
    log_url: str, engine: sa.Engine, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted_by(engine, log_url) as (worker, tenants):
        tenants.send(1)
        until(tenants.counted)
        polls = Polls(worker, monkeypatch)
        gc.collect()
        gc.disable()
        try:
            with holding(postgres_url, ORGANISATIONS) as held:
                tenants.send(1)
                held.reached()
                before = polls.in_vain
                until(lambda: polls.in_vain > before + 3)
                tenants.send(1)
                until(lambda: worker.worker._gathered)
                before = polls.in_vain
                until(lambda: polls.in_vain > before + 3)
            until(tenants.counted)
            until(lambda: not [one for one in gc.get_objects() if isinstance(one, Prepared)], 10)
        finally:
            gc.enable()
