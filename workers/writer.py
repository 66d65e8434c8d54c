"""Writes batches on threads of its own, while the next ones are made ready."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import NamedTuple

from backends.log import Record, TopicPartition
from workers.batch import Prepared

SHARE_BYTES = 128 * 1024
"""Some 400 events. Of fewer, what every transaction costs is more than half."""

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


def shares(batch: Sequence[Record], most: int, least_bytes: int = SHARE_BYTES) -> list[list[Record]]:
    """A batch as up to so many of about the same size and not less than that, to be written at the same time.

    By the partition's number, so that an organisation is in one of them, and in the order of each partition.
    """
    by_partition: defaultdict[int, list[Record]] = defaultdict(list)
    for record in batch:
        by_partition[record.partition].append(record)
    sizes = {partition: sum(len(r.value) for r in records) for partition, records in by_partition.items()}
    number = max(1, min(most, sum(sizes.values()) // least_bytes))
    made = [_Share(0, []) for _ in range(number)]
    for partition in sorted(sizes, key=lambda one: sizes[one], reverse=True):
        smallest = min(made, key=lambda share: share.size)
        smallest.size += sizes[partition]
        smallest.records += by_partition[partition]
    return [share.records for share in made if share.records]


@dataclass(slots=True)
class _Share:
    size: int
    records: list[Record]
