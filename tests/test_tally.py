"""An edge's sums for the audit: never more than was promised, never twice, and never in a request's way."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from backends.store.accounts import EdgeSums
from backends.store.engine import open_engine
from backends.store.migrate import migrate
from ingest import tally as tally_module
from ingest.tally import Tally
from schemas import tables as t
from service import metrics
from tests.servers.postgres import Postgres
from tests.working import until

ACORN, BIRCH = "acorn", "birch"
TOPIC = "zenstep.events"
DAY_MS = 86_400_000


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_module, "EVERY_SECONDS", 0.01)


def stored(engine: sa.Engine) -> dict[tuple[Any, ...], int]:
    """Sums over edges."""
    a = t.accepted.c
    keys = (a.organisation_id, a.topic, a.partition, a.outcome)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(*keys, sa.func.sum(a.events)).group_by(*keys))
        return {tuple(row[:-1]): int(row[-1]) for row in rows}


def errors() -> float:
    return float(metrics.tally_errors._value.get())


def edges(engine: sa.Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(sa.select(t.accepted.c.edge)).scalars())


async def eventually(done: Callable[[], object]) -> None:
    await asyncio.to_thread(until, done)


async def running(tally: Tally, work: Callable[[], Any]) -> None:
    """As an edge runs it: beside its work, cancelled and closed at the end."""
    task = asyncio.create_task(tally.run())
    try:
        await work()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await tally.close()


def test_sums_are_kept_by_organisation_topic_partition_and_outcome(engine: sa.Engine, often: None) -> None:
    tally = Tally(engine)

    async def work() -> None:
        tally.add(ACORN, TOPIC, 3, "acknowledged", 50)
        tally.add(ACORN, TOPIC, 3, "acknowledged", 1)
        tally.add(ACORN, TOPIC, -1, "spooled", 7)
        await eventually(lambda: len(stored(engine)) == 2)
        tally.add(ACORN, TOPIC, 3, "flushed", 7)
        tally.add(BIRCH, TOPIC, 0, "acknowledged", 2)
        tally.add(ACORN, TOPIC, 3, "acknowledged", 9)

    asyncio.run(running(tally, work))
    assert stored(engine) == {
        (ACORN, TOPIC, 3, "acknowledged"): 60,
        (ACORN, TOPIC, -1, "spooled"): 7,
        (ACORN, TOPIC, 3, "flushed"): 7,
        (BIRCH, TOPIC, 0, "acknowledged"): 2,
    }
    assert len(edges(engine)) == 1


def test_two_edges_add_up(engine: sa.Engine) -> None:
    async def one(events: int) -> None:
        tally = Tally(engine)
        tally.add(ACORN, TOPIC, 3, "acknowledged", events)
        await tally.close()

    asyncio.run(one(5))
    asyncio.run(one(6))
    assert stored(engine) == {(ACORN, TOPIC, 3, "acknowledged"): 11}


def test_a_write_that_comes_late_takes_nothing_back(engine: sa.Engine) -> None:
    sums = EdgeSums(engine)
    place = (ACORN, TOPIC, 3, "acknowledged")
    for events in (5, 9, 9, 5):
        sums.set("edge", {place: events}, 1)
    assert stored(engine) == {place: 9}


def test_sums_wait_while_the_store_is_away(private_postgres: Postgres, often: None) -> None:
    engine = open_engine(f"{private_postgres.url}/postgres")
    migrate(engine)
    tally = Tally(engine)

    async def work() -> None:
        tally.add(ACORN, TOPIC, 3, "acknowledged", 1)
        await eventually(lambda: stored(engine))
        await asyncio.to_thread(private_postgres.stop)
        before = errors()
        tally.add(ACORN, TOPIC, 3, "acknowledged", 10)
        await eventually(lambda: errors() > before)
        tally.add(ACORN, TOPIC, 3, "acknowledged", 100)
        tally.add(BIRCH, TOPIC, 0, "acknowledged", 1)
        await asyncio.to_thread(private_postgres.start)
        await eventually(lambda: len(stored(engine)) == 2)

    asyncio.run(running(tally, work))
    assert stored(engine) == {(ACORN, TOPIC, 3, "acknowledged"): 111, (BIRCH, TOPIC, 0, "acknowledged"): 1}
    engine.dispose()


def test_a_store_that_never_answers_holds_up_nothing(
    postgres_url: str, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally_module, "CLOSE_SECONDS", 0.2)
    engine = open_engine(postgres_url)
    tally = Tally(engine)
    with psycopg.connect(postgres_url) as locking:
        locking.execute("LOCK TABLE accepted")

        async def work() -> None:
            tally.add(ACORN, TOPIC, 3, "acknowledged", 1)
            await eventually(lambda: [thread for thread in threading.enumerate() if thread.name == "edge-tally"])
            tally.add(ACORN, TOPIC, 3, "acknowledged", 1)

        asyncio.run(running(tally, work))  # ends, though nobody unlocks the table
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "edge-tally"])
    engine.dispose()


def test_a_store_without_tables_is_no_fault_of_the_edge(tmp_path: Path, often: None) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/store.db")
    tally = Tally(engine)

    async def work() -> None:
        before = errors()
        tally.add(ACORN, TOPIC, 3, "acknowledged", 1)
        await eventually(lambda: errors() > before)
        await asyncio.to_thread(migrate, engine)
        await eventually(lambda: stored(engine))

    asyncio.run(running(tally, work))
    assert stored(engine) == {(ACORN, TOPIC, 3, "acknowledged"): 1}
    engine.dispose()


def test_an_edge_that_its_rows_were_folded_away_from_counts_on_from_there(engine: sa.Engine) -> None:
    now = [1_000 * DAY_MS]
    tally = Tally(engine, lambda: now[0])

    async def work() -> None:
        tally.add(ACORN, TOPIC, 3, "acknowledged", 10)
        tally.add(BIRCH, TOPIC, 0, "acknowledged", 1)
        await tally.close()
        with engine.begin() as connection:  # as `zenstep prune` does
            connection.execute(t.accepted.update().values(edge=""))
        now[0] += 8 * DAY_MS
        tally.add(ACORN, TOPIC, 3, "acknowledged", 5)
        await tally.close()

    asyncio.run(work())
    assert stored(engine) == {(ACORN, TOPIC, 3, "acknowledged"): 15, (BIRCH, TOPIC, 0, "acknowledged"): 1}
    assert len(edges(engine)) == 2


def test_an_edge_that_was_only_silent_keeps_its_rows(engine: sa.Engine) -> None:
    now = [1_000 * DAY_MS]
    tally = Tally(engine, lambda: now[0])

    async def work() -> None:
        for _ in range(2):
            tally.add(ACORN, TOPIC, 3, "acknowledged", 10)
            await tally.close()
            now[0] += 8 * DAY_MS

    asyncio.run(work())
    assert stored(engine) == {(ACORN, TOPIC, 3, "acknowledged"): 20}
    assert len(edges(engine)) == 1


def test_an_edge_without_traffic_is_still_heard_of(engine: sa.Engine) -> None:
    now = [1_000 * DAY_MS]
    tally = Tally(engine, lambda: now[0])

    async def work() -> None:
        tally.add(ACORN, TOPIC, 3, "acknowledged", 10)
        await tally.close()
        now[0] += DAY_MS // 2
        await tally.close()

    asyncio.run(work())
    with engine.connect() as connection:
        assert connection.execute(sa.select(t.accepted.c.at)).scalars().all() == [now[0]]
