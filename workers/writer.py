"""Writes one batch at a time on a thread of its own, while the next is made ready."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import NamedTuple

from backends.log import TopicPartition
from workers.batch import Prepared

Reached = Mapping[TopicPartition, int]
"""The time (epoch ms) of the last record of each partition."""


class Written(NamedTuple):
    """Where the store's offsets now stand, and the times of the last records."""

    offsets: Mapping[TopicPartition, int]
    reached: Reached


class Writer:
    """Used from one thread. `finish` a batch before the next is begun."""

    def __init__(self, write: Callable[[Prepared], Mapping[TopicPartition, int]]) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._under_way: Future[Written] | None = None

    @property
    def busy(self) -> bool:
        """Whether a batch is being written at this moment."""
        return self._under_way is not None and not self._under_way.done()

    def start(self, batch: Prepared, reached: Reached) -> None:
        """Returns at once."""
        self._under_way = self._thread.submit(lambda: Written(self._write(batch), reached))

    def wait(self) -> None:
        """Until nothing is being written. What came of it is told by `finish`."""
        if self._under_way is not None:
            wait_for([self._under_way])

    def finish(self) -> Written | None:
        """What came of the batch; None where none was begun since the last call. Raises what writing it raised."""
        under_way, self._under_way = self._under_way, None
        return under_way.result() if under_way is not None else None

    def close(self) -> None:
        """Waits for what is being written."""
        self._thread.shutdown()
