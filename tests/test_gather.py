"""How much a worker gathers while a batch is being written: as many records, and as many bytes, as one may have."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.log import Record, TopicPartition
from backends.store.engine import open_engine
from workers import loop
from workers.loop import Worker

HERE = TopicPartition("t", 0)
SIZE = 400


class OneByOne:
    """A consumer whose every poll brings one record."""

    def __init__(self) -> None:
        self.records = 0

    def poll(self, timeout: float, max_records: int) -> list[Record]:
        self.records += 1
        return [Record(*HERE, self.records - 1, 1, b"x" * SIZE)]

    def close(self) -> None: ...


@pytest.fixture
def gather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], int]]:
    """How many records come together, with so many at most and so many bytes."""
    engine = open_engine(f"sqlite:///{tmp_path}/store.db")
    made: list[Worker] = []

    def gathered(most: int, size: int) -> int:
        monkeypatch.setattr(loop, "BATCH_BYTES", size)
        monkeypatch.setattr(loop.Writer, "ready", False)  # for ever
        consumer: Any = OneByOne()
        worker = Worker(engine, lambda *_: consumer, most)
        made.append(worker)
        worker._next[HERE] = 0
        worker._gather()
        return len(worker._gathered)

    yield gathered
    for worker in made:
        worker._writer.close()
    engine.dispose()


def test_a_batch_ends_with_its_records(gather: Callable[[int, int], int]) -> None:
    assert gather(7, 1_000_000) == 7


def test_a_batch_ends_with_its_bytes(gather: Callable[[int, int], int]) -> None:
    assert gather(1000, 3 * SIZE) == 3
    assert gather(1000, 3 * SIZE + 1) == 4
