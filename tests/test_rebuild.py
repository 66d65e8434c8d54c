"""The rebuild: the same numbers from the topics again, while everything goes on, and whatever ends it in between."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from backends.log import open_reader
from backends.store.compare import Difference
from backends.store.engine import open_engine
from backends.store.rebuild import open_beside
from tests import recording
from workers.rebuild import Progress, Rebuild


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


def rebuild(store_url: str, log_url: str, batch_records: int = 50, accept_loss: bool = False) -> Progress:
    """Rebuilds and swaps in this process."""
    with closing(open_beside(store_url)) as beside, closing(open_reader(log_url)) as reader:
        return Rebuild(beside, reader, batch_records, accept_loss=accept_loss).swap()


def compare(store_url: str, log_url: str, batch_records: int = 50) -> dict[str, Difference]:
    with closing(open_beside(store_url)) as beside, closing(open_reader(log_url)) as reader:
        return {found.table: found for found in Rebuild(beside, reader, batch_records).compare()}


def numbers(store: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """A snapshot without what depends on where batches ended: cells back at zero, and times to complete."""
    cells = {table: [r for r in store[table] if r["sessions"] or any(_counters(r))] for table in CELLS}
    users = [row for row in store["sketches"] if row["kind"] != "seconds"]
    sessions = [{name: value for name, value in row.items() if name != "timed"} for row in store["sessions"]]
    return {**store, **cells, "sketches": users, "sessions": sessions}


CELLS = ("cohorts", "cohort_steps")


def _counters(row: dict[str, Any]) -> list[int]:
    return [row.get(name, 0) for name in ("starts", "completed", "dismissed", "dropped")]


@pytest.mark.parametrize("name", recording.NAMES)
def test_a_rebuilt_store_is_the_store_that_was_counted(
    log_url: str, store_url: str, engine: sa.Engine, name: str
) -> None:
    recording.prepare(engine)
    replay = recording.Replay(log_url, engine, name)
    replay.append()
    replay.count()
    before = replay.store()
    assert all(found.equal for found in compare(store_url, log_url).values())
    rebuild(store_url, log_url)
    assert numbers(replay.store()) == numbers(before)
