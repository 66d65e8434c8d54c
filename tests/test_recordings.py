"""Recorded topics, replayed through a worker on either log into either store: the store is as it was written down."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from backends.store.engine import open_engine
from tests import recording
from tests.snapshot import COUNTED


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    recording.prepare(opened)
    yield opened
    opened.dispose()


@pytest.mark.parametrize("name", recording.NAMES)
def test_a_recording_is_counted_as_written_down(log_url: str, engine: sa.Engine, name: str) -> None:
    replay = recording.Replay(log_url, engine, name)
    replay.append()
    replay.count()
    assert replay.store() == recording.expected(name)


def test_a_worker_of_another_group_reads_from_the_beginning_and_changes_nothing(
    log_url: str, engine: sa.Engine
) -> None:
    replay = recording.Replay(log_url, engine, "hostile")
    replay.append()
    replay.count()
    replay.count(group="another")
    assert replay.store() == recording.expected("hostile")


@pytest.mark.parametrize("name", recording.NAMES)
def test_the_same_recording_appended_again_counts_nothing(log_url: str, engine: sa.Engine, name: str) -> None:
    replay = recording.Replay(log_url, engine, name)
    for _ in range(2):
        replay.append()
        replay.count()
    found, expected = replay.store(), recording.expected(name)
    assert {table: found[table] for table in COUNTED} == {table: expected[table] for table in COUNTED}
    first, both = _by_outcome(expected["ledger"]), _by_outcome(found["ledger"])
    assert both.pop("counted") == first.pop("counted") > 0
    assert both.pop("consumed") == 2 * first.pop("consumed")
    assert both.pop("duplicate") == sum(first_duplicates(expected)) > 0
    first.pop("duplicate", None)
    assert both == {outcome: 2 * events for outcome, events in first.items()}, "what was rejected is rejected again"


def first_duplicates(expected: dict[str, list[dict[str, int]]]) -> list[int]:
    """What is a duplicate once is one twice, and all that was counted is one the second time."""
    outcomes = _by_outcome(expected["ledger"])
    return [2 * outcomes.get("duplicate", 0), outcomes["counted"]]


def _by_outcome(ledger: list[dict[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for row in ledger:
        sums[str(row["outcome"])] = sums.get(str(row["outcome"]), 0) + row["events"]
    return sums
