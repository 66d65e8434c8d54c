"""Hands envelopes to the log: those of one tick of the event loop for one partition share a record.

`Enqueuer.put` returns when the log has acknowledged, and only then: a 2xx after it is a promise that is kept.
A place for the spool: `_failed` is where a record that was not acknowledged would be spooled instead of refused.
"""

import asyncio
import logging
import time
from collections import defaultdict
from concurrent.futures import Future
from typing import NamedTuple

from backends.log import LogError, LogUnavailable, Producer
from schemas.ids import partition_of
from service import metrics

log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    line: bytes
    done: asyncio.Future[None]


class Enqueuer:
    """For one topic, on one event loop. `connect` before the first `put`."""

    def __init__(self, producer: Producer, topic: str, timeout: float) -> None:
        self._producer = producer
        self._topic = topic
        self._timeout = timeout
        self._partitions = 0
        self._max_bytes = 0
        self._tick: defaultdict[int, list[_Waiting]] = defaultdict(list)

    def connect(self) -> None:
        """Asks the log for the topic; blocking, and again whenever it was away. Raises LogError."""
        self._max_bytes = self._producer.max_record_bytes(self._topic)
        self._partitions = self._producer.partitions(self._topic)

    @property
    def connected(self) -> bool:
        return self._partitions > 0

    async def put(self, organisation: str, line: bytes) -> None:
        """Raises LogUnavailable where it is not known to be written within the timeout, RecordTooLarge."""
        if not self.connected:
            raise LogUnavailable("the log has not answered yet")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if not self._tick:
            loop.call_soon(self._flush)
        self._tick[partition_of(organisation, self._partitions)].append(_Waiting(line, done))
        try:
            async with asyncio.timeout(self._timeout):
                await done
        except TimeoutError:
            raise LogUnavailable("no acknowledgement in time") from None

    def _flush(self) -> None:
        tick, self._tick = self._tick, defaultdict(list)
        for partition, waiting in tick.items():
            for group in _grouped(waiting, self._max_bytes):
                self._produce(partition, group)

    def _produce(self, partition: int, group: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        value = b"\n".join(waiting.line for waiting in group)

        def acknowledged(result: Future[int]) -> None:
            loop.call_soon_threadsafe(self._finish, group, result, started)

        self._producer.produce(self._topic, partition, value).add_done_callback(acknowledged)

    def _finish(self, group: list[_Waiting], result: Future[int], started: float) -> None:
        error = result.exception()
        if error is None:
            metrics.produce_seconds.observe(time.perf_counter() - started)
            metrics.records_acknowledged.labels(self._topic).inc()
        else:
            self._failed(error)
        for waiting in group:
            if waiting.done.done():
                continue  # its client gave up or timed out
            if error is None:
                waiting.done.set_result(None)
            else:
                known = isinstance(error, LogError)
                waiting.done.set_exception(error if known else LogUnavailable(type(error).__name__))

    def _failed(self, error: BaseException) -> None:
        metrics.records_failed.labels(self._topic).inc()
        log.warning("record not acknowledged", extra={"topic": self._topic, "kind": type(error).__name__})


def _grouped(waiting: list[_Waiting], max_bytes: int) -> list[list[_Waiting]]:
    """Groups whose lines, joined by newlines, stay within one record. A line too large alone is a group of its own."""
    groups: list[list[_Waiting]] = []
    size = max_bytes + 1
    for one in waiting:
        if size + 1 + len(one.line) > max_bytes:
            groups.append([])
            size = -1
        groups[-1].append(one)
        size += 1 + len(one.line)
    return groups
