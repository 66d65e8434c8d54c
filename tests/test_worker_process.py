"""The worker as a process on a real Kafka and PostgreSQL: frozen until it is a zombie, asked to leave in mid-batch."""

import signal
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from backends.log import Producer, open_admin, open_producer
from backends.store.engine import open_engine
from tests.blocking import FLOWS, ORGANISATIONS, holding, waiting
from tests.processes import Process, role
from tests.tenants import PARTITIONS, Tenants
from tests.working import until


@pytest.fixture
def settings(kafka_servers: str, postgres_url: str) -> dict[str, object]:
    prefix = f"p{uuid.uuid4().hex}"
    with closing(open_admin(f"kafka://{kafka_servers}")) as admin:
        for name in ("events", "heartbeats", "refused"):
            admin.create_topic(f"{prefix}.{name}", PARTITIONS, 1)
    addresses = {"log_url": f"kafka://{kafka_servers}", "store_url": postgres_url}
    return {**addresses, "topic_prefix": prefix, "group": f"g{prefix}"}


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(postgres_url)
    yield opened
    opened.dispose()


@pytest.fixture
def producer(settings: dict[str, object]) -> Iterator[Producer]:
    opened = open_producer(str(settings["log_url"]))
    opened.partitions(f"{settings['topic_prefix']}.events")
    yield opened
    opened.close(5)


@pytest.fixture
def tenants(engine: sa.Engine, producer: Producer, settings: dict[str, object]) -> Tenants:
    return Tenants(engine, producer, f"{settings['topic_prefix']}.events")


def metric(process: Process, name: str) -> float:
    for line in httpx.get(f"{process.admin}/metrics", timeout=20).text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise LookupError(name)


def test_a_worker_that_wakes_after_its_partitions_moved_writes_nothing(
    settings: dict[str, object], postgres_url: str, tenants: Tenants, tmp_path: Path
) -> None:
    """It has read a batch, is frozen before it writes, and is taken for dead."""
    with role("worker", settings, tmp_path) as frozen:
        until(lambda: metric(frozen, "zenstep_partitions_assigned") == 3 * PARTITIONS)
        with holding(postgres_url, FLOWS) as flows:
            tenants.send(2)
            flows.reached()
            frozen.process.send_signal(signal.SIGSTOP)
        with role("worker", settings, tmp_path) as heir:
            until(tenants.counted)
            tenants.check()
            frozen.process.send_signal(signal.SIGCONT)
            until(lambda: metric(frozen, "zenstep_zombie_batches_total") >= 1)
            tenants.send(1)
            until(tenants.counted)
            tenants.check()
            assert frozen.terminate() == heir.terminate() == 0


def test_a_worker_frozen_in_its_transaction_does_not_hold_up_the_next(
    settings: dict[str, object], postgres_url: str, tenants: Tenants, tmp_path: Path
) -> None:
    """It has moved the offsets, but not committed: they are held until its session is ended."""
    tenants.send(1)
    with role("worker", settings, tmp_path) as frozen:
        until(tenants.counted)
        with holding(postgres_url, ORGANISATIONS) as organisations:
            tenants.send(2)
            organisations.reached()
            frozen.process.send_signal(signal.SIGSTOP)
        with role("worker", settings, tmp_path) as heir:
            until(tenants.counted)
            frozen.process.send_signal(signal.SIGCONT)
            tenants.send(1)
            until(tenants.counted)
            tenants.check()
            assert frozen.terminate() == heir.terminate() == 0


def test_a_rebalance_waits_for_the_batch_under_way(
    settings: dict[str, object], postgres_url: str, tenants: Tenants, tmp_path: Path
) -> None:
    tenants.send(1)
    with role("worker", settings, tmp_path) as first:
        until(tenants.counted)
        with holding(postgres_url, ORGANISATIONS) as organisations:
            tenants.send(2)
            organisations.reached()
            second = Process("worker", settings, tmp_path / "second.log")
            # It waits for the first to let go, and has nothing meanwhile.
            until(lambda: alive(second))
            assert metric(second, "zenstep_partitions_assigned") == 0
        until(second.ready)
        until(lambda: metric(second, "zenstep_partitions_assigned") > 0)
        until(tenants.counted)
        tenants.send(1)
        until(tenants.counted)
        tenants.check()
        assert metric(first, "zenstep_zombie_batches_total") == 0
        assert second.terminate() == first.terminate() == 0


def alive(process: Process) -> bool:
    try:
        return httpx.get(f"{process.admin}/livez", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_sigterm_in_mid_batch_finishes_it_and_leaves(
    settings: dict[str, object], postgres_url: str, tenants: Tenants, tmp_path: Path
) -> None:
    tenants.send(1)
    with role("worker", settings, tmp_path) as worker:
        until(tenants.counted)
        with holding(postgres_url, ORGANISATIONS) as organisations:
            tenants.send(2)
            organisations.reached()
            worker.process.send_signal(signal.SIGTERM)
            until(lambda: httpx.get(f"{worker.admin}/readyz", timeout=5).status_code == 503)
            assert waiting(postgres_url)
            assert worker.process.poll() is None
        assert worker.process.wait(30) == 0
    consumed = tenants.consumed()
    assert consumed > len(tenants.flows), "the batch under way was counted"
    with role("worker", settings, tmp_path) as next_one:
        until(tenants.counted)
        tenants.check()
        assert next_one.terminate() == 0
