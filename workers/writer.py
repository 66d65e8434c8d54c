"""Writes batches on threads of its own, while the next ones are made ready.

A batch is written in shares. The same partitions are in the same share of each, and a share waits for those before it
that have one of its partitions and for no other: so none of the threads has nothing to do while another is not done.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import NamedTuple

from backends.log import Record, TopicPartition
from workers.batch import Prepared

SHARE_BYTES = 128 * 1024
"""Some 400 events. Of fewer, what every transaction costs is more than half."""


class Behind(Exception):
    """Not written, since what comes before it in a partition was not."""


class Written(NamedTuple):
    """Where the store's offsets now stand, and the times (epoch ms) of the last records."""

    offsets: Mapping[TopicPartition, int]
    reached: Mapping[TopicPartition, int]


class _Share(NamedTuple):
    partitions: frozenset[TopicPartition]
    outcome: Future[Written]


class Writer:
    """Used from one thread. `write` is called for as many shares at the same time as a batch has."""

    def __init__(self, write: Callable[[Prepared], Mapping[TopicPartition, int]], shares: int) -> None:
        self._write = write
        # Those of a batch may each wait for one of the batch before.
        self._threads = ThreadPoolExecutor(2 * shares, thread_name_prefix="writer")
        self._before: list[_Share] = []  # of earlier batches
        self._last: list[_Share] = []  # of the one that was begun last
        self._untold: list[Future[Written]] = []

    @property
    def idle(self) -> bool:
        """Nothing is being written, and all that was has been told."""
        return not self._untold

    @property
    def ready(self) -> bool:
        """Whether one of the threads has nothing to do, or will have as soon as it looks: time to begin a batch."""
        if not all(share.outcome.done() for share in self._before):
            return False
        return not self._last or any(share.outcome.done() for share in self._last)

    def begin(self, batch: Sequence[Prepared]) -> None:
        """Returns at once; `ready` or not. The shares of a batch are of different partitions."""
        earlier = [share for share in self._before + self._last if not _succeeded(share.outcome)]
        self._before, self._last = earlier, []
        for prepared in batch:
            partitions = frozenset(TopicPartition(move.topic, move.partition) for move in prepared.moves)
            ahead = [share.outcome for share in earlier if share.partitions & partitions]
            outcome = self._threads.submit(self._write_behind, ahead, prepared)
            self._last.append(_Share(partitions, outcome))
            self._untold.append(outcome)

    def wait_until_ready(self) -> None:
        wait_for([share.outcome for share in self._before])
        wait_for([share.outcome for share in self._last], return_when=FIRST_COMPLETED)

    def wait(self) -> None:
        """Until nothing is being written."""
        wait_for([share.outcome for share in self._before + self._last])

    def done(self) -> list[Written | BaseException]:
        """What came of each share that has ended, each told once."""
        ended = [one for one in self._untold if one.done()]
        self._untold = [one for one in self._untold if one not in ended]
        return [one.exception() or one.result() for one in ended]

    def finish(self) -> list[Written | BaseException]:
        """Waits until nothing is being written; what is begun next waits for nothing, whatever came of this."""
        self.wait()
        self._before, self._last = [], []
        return self.done()

    def close(self) -> None:
        """Waits for what is being written."""
        self._threads.shutdown()

    def _write_behind(self, ahead: Sequence[Future[Written]], prepared: Prepared) -> Written:
        if any(one.exception() is not None for one in ahead):  # which waits for it
            raise Behind
        reached = {TopicPartition(move.topic, move.partition): move.processed_through for move in prepared.moves}
        return Written(self._write(prepared), reached)


def _succeeded(outcome: Future[Written]) -> bool:
    return outcome.done() and outcome.exception() is None


def shares(
    batch: Sequence[Record], most: int, held: Collection[int], least_bytes: int = SHARE_BYTES
) -> list[list[Record]]:
    """A batch as up to so many of not less than that, to be written at the same time.

    By the partition's number, so that an organisation is in one of them, and in the order of each partition. `held`
    are the numbers of all partitions of this worker: so that each is in the same share of every large batch.
    """
    number = max(1, min(most, sum(len(record.value) for record in batch) // least_bytes))
    places = {partition: place % number for place, partition in enumerate(sorted(held))}
    made: defaultdict[int, list[Record]] = defaultdict(list)
    for record in batch:
        made[places[record.partition]].append(record)
    return list(made.values())
