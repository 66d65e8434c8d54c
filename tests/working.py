"""A worker on a thread, and waiting for what it does."""

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from backends.log import TopicPartition, open_consumer
from workers.loop import Worker

ENOUGH_SECONDS = 60.0


def until(done: Callable[[], object], seconds: float = ENOUGH_SECONDS) -> None:
    """Asks again and again until it is so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


class Working:
    """A worker that runs on a thread of its own until `stop`."""

    def __init__(self, engine: sa.Engine, log_url: str, topics: Sequence[str], group: str, records: int = 1000) -> None:
        self.worker = Worker(engine, functools.partial(open_consumer, log_url, group, topics), records)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="worker")
        self._thread.start()

    def held(self) -> set[TopicPartition]:
        """The partitions it has."""
        return set(self.worker._next)

    def caught_up(self) -> bool:
        return self.worker.problem is None and bool(self.held())

    def stop(self) -> None:
        """Returns when it has finished its batch and left the group."""
        self.worker.stop()
        self._thread.join(ENOUGH_SECONDS)
        assert not self._thread.is_alive(), "the worker does not stop"

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self.error = error


@contextmanager
def working(
    engine: sa.Engine, log_url: str, topics: Sequence[str], group: str, records: int = 1000
) -> Iterator[Working]:
    """What ended the worker, if it is an error, comes out of the block."""
    started = Working(engine, log_url, topics, group, records)
    try:
        yield started
    finally:
        started.stop()
    if started.error is not None:
        raise started.error
