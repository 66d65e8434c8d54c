"""Writes batches on threads of its own, while the next ones are made ready."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import NamedTuple

from backends.log import Record, TopicPartition
from workers.batch import Prepared

Reached = Mapping[TopicPartition, int]
"""The time (epoch ms) of the last record of each partition."""


class Written(NamedTuple):
    """Where the store's offsets now stand, and the times of the last records."""

    offsets: Mapping[TopicPartition, int]
    reached: Reached


class Writer:
    """Used from one thread. `finish` what is being written before the next is begun."""

    def __init__(self, write: Callable[[Prepared], Mapping[TopicPartition, int]], threads: int) -> None:
        self._write = write
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="writer")
        self._under_way: list[Future[Written]] = []

    @property
    def busy(self) -> bool:
        """Whether anything is being written at this moment."""
        return any(not one.done() for one in self._under_way)

    def start(self, batch: Prepared, reached: Reached) -> None:
        """Returns at once. Batches that are written at the same time are of different partitions."""
        self._under_way.append(self._threads.submit(lambda: Written(self._write(batch), reached)))

    def wait(self) -> None:
        """Until nothing is being written. What came of it is told by `finish`."""
        wait_for(self._under_way)

    def finish(self) -> list[Written | BaseException]:
        """What came of each batch that was begun since the last call."""
        under_way, self._under_way = self._under_way, []
        wait_for(under_way)
        return [one.exception() or one.result() for one in under_way]

    def close(self) -> None:
        """Waits for what is being written."""
        self._threads.shutdown()


def shares(batch: Sequence[Record], number: int) -> list[list[Record]]:
    """A batch as at most so many of about the same size, to be written at the same time.

    By the partition's number, so that an organisation is in one of them, and in the order of each partition.
    """
    by_partition: defaultdict[int, list[Record]] = defaultdict(list)
    for record in batch:
        by_partition[record.partition].append(record)
    made: list[list[Record]] = [[] for _ in range(number)]
    for records in sorted(by_partition.values(), key=len, reverse=True):
        min(made, key=len).extend(records)
    return [share for share in made if share]
