"""A batch begins before the last one is done: what becomes of it when that one fails."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from backends.log import Record, TopicPartition
from backends.store.counting import OffsetMoved
from backends.store.engine import open_engine
from tests.stores import make_store
from tests.working import until
from workers import loop, writer
from workers.batch import Prepared
from workers.loop import Worker

PARTITIONS = [TopicPartition("t", number) for number in range(3)]
LAST = 40
LINE = b"no line of ours"


class Log:
    """A consumer of three partitions with forty records each, of which a poll brings the next one of each."""

    def __init__(self) -> None:
        self.at = dict.fromkeys(PARTITIONS, 0)

    def poll(self, timeout: float, max_records: int) -> list[Record]:
        found = [Record(*tp, at, 1, LINE) for tp, at in self.at.items() if at < LAST]
        for record in found:
            self.at[TopicPartition(record.topic, record.partition)] += 1
        return found

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at[tp] = offset

    def assignment(self) -> list[TopicPartition]:
        return PARTITIONS

    def identities(self) -> dict[str, str]:
        return {}

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, LAST)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None: ...
    def keep_alive(self, seconds: float) -> None: ...
    def close(self) -> None: ...


class Store:
    """Takes what follows what it has. The first write of a partition fails, once a second batch has begun."""

    def __init__(self, error: Exception) -> None:
        self.offsets = dict.fromkeys(PARTITIONS, 0)
        self.begun_twice = threading.Event()
        self._errors = [error]

    def write(self, batch: Prepared) -> dict[TopicPartition, int]:
        if self._errors and batch.moves[0].partition == 0:
            assert self.begun_twice.wait(30)
            raise self._errors.pop()
        for move in batch.moves:
            tp = TopicPartition(move.topic, move.partition)
            assert self.offsets[tp] == move.expected
            self.offsets[tp] = move.following
        return {TopicPartition(move.topic, move.partition): move.following for move in batch.moves}


@pytest.mark.parametrize("error", [sa.exc.OperationalError("away", None, Exception()), OffsetMoved("t", 0)])
def test_all_is_written_once_and_in_order_though_a_write_fails_with_more_behind_it(
    error: Exception, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    make_store(url)
    engine = open_engine(url)
    monkeypatch.setattr(loop, "BATCH_BYTES", 3 * len(LINE))
    monkeypatch.setattr(writer.shares, "__defaults__", (1,))  # three shares of one record each
    log, store = Log(), Store(error)
    consumer: Any = log
    worker = Worker(engine, lambda *_: consumer, 1000)
    worker._writers = 3
    worker._writer = writer.Writer(store.write, 3)
    worker._next = dict.fromkeys(PARTITIONS, 0)
    worker._ahead = dict.fromkeys(PARTITIONS, 0)
    begun = []
    begin = worker._writer.begin

    def noted(batch: Any) -> None:
        begin(batch)
        begun.append(len(batch))
        if len(begun) == 2:
            store.begun_twice.set()

    monkeypatch.setattr(worker._writer, "begin", noted)
    running = threading.Thread(target=worker.run)
    running.start()
    until(lambda: set(store.offsets.values()) == {LAST} or not running.is_alive())
    worker.stop()
    running.join(30)
    assert set(store.offsets.values()) == {LAST}
    assert begun[:2] == [3, 3]
    engine.dispose()
