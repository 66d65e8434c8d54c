"""Hands envelopes to the log: those of one tick of the event loop for one partition share a record.

`Enqueuer.put` returns when the log has acknowledged, and only then: a 2xx after it is a promise that is kept.
"""

import asyncio
import logging
import time
from collections import defaultdict
from concurrent.futures import Future
from typing import NamedTuple

from backends.log import LogError, LogUnavailable, Producer, RecordTooLarge
from ingest.breaker import Breaker
from ingest.grouping import grouped
from ingest.tally import Tally
from schemas.ids import partition_of
from service import metrics

log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    organisation: str
    line: bytes
    events: int
    done: asyncio.Future[None]


class Enqueuer:
    """For one topic, on one event loop. `connect` before the first `put`."""

    def __init__(self, producer: Producer, topic: str, timeout: float, tally: Tally | None = None) -> None:
        self.topic = topic
        self.max_bytes: int | None = None  # of a record; not known before the log has answered
        self._producer = producer
        self._timeout = timeout
        self._tally = tally
        self._partitions = 0
        self._breakers: defaultdict[int, Breaker] = defaultdict(Breaker)
        self._tick: defaultdict[int, list[_Waiting]] = defaultdict(list)

    def connect(self) -> None:
        """Asks the log for the topic; blocking, and again whenever it was away. Raises LogError."""
        partitions = self._producer.partitions(self.topic)
        self.max_bytes = self._producer.max_record_bytes(self.topic)
        self._partitions = partitions

    @property
    def connected(self) -> bool:
        return self._partitions > 0

    @property
    def healthy(self) -> bool:
        """Connected, and no partition has failed since it last did what it was asked."""
        return self.connected and not any(breaker.open for breaker in self._breakers.values())

    async def put(self, organisation: str, line: bytes, events: int = 1) -> None:
        """Raises LogUnavailable where it is not known to be written within the timeout, at once where the partition
        has failed a moment ago; RecordTooLarge.
        """
        if not self.connected:
            raise LogUnavailable("the log has not answered yet")
        partition = partition_of(organisation, self._partitions)
        breaker = self._breakers[partition]
        if not breaker.allows():
            raise LogUnavailable("the partition has failed a moment ago")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if not self._tick:
            loop.call_soon(self._flush)
        self._tick[partition].append(_Waiting(organisation, line, events, done))
        try:
            async with asyncio.timeout(self._timeout):
                await done
        except TimeoutError:
            breaker.failed()
            raise LogUnavailable("no acknowledgement in time") from None

    def _flush(self) -> None:
        tick, self._tick = self._tick, defaultdict(list)
        for partition, waiting in tick.items():
            for group in grouped(waiting, lambda one: len(one.line), self.max_bytes or 0):
                self._produce(partition, group)

    def _produce(self, partition: int, group: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        value = b"\n".join(waiting.line for waiting in group)

        def acknowledged(result: Future[int]) -> None:
            loop.call_soon_threadsafe(self._finish, partition, group, result, started)

        self._producer.produce(self.topic, partition, value).add_done_callback(acknowledged)

    def _finish(self, partition: int, group: list[_Waiting], result: Future[int], started: float) -> None:
        error = result.exception()
        if error is None:
            self._breakers[partition].succeeded()
            metrics.produce_seconds.observe(time.perf_counter() - started)
            metrics.records_acknowledged.labels(self.topic).inc()
        else:
            self._failed(partition, error)
        for waiting in group:
            if error is None and self._tally is not None:
                self._tally.add(waiting.organisation, self.topic, partition, "acknowledged", waiting.events)
            if waiting.done.done():
                continue  # its client gave up or timed out
            if error is None:
                waiting.done.set_result(None)
            else:
                known = isinstance(error, LogError)
                waiting.done.set_exception(error if known else LogUnavailable(type(error).__name__))

    def _failed(self, partition: int, error: BaseException) -> None:
        if not isinstance(error, RecordTooLarge):
            self._breakers[partition].failed()
        metrics.records_failed.labels(self.topic).inc()
        log.warning("record not acknowledged", extra={"topic": self.topic, "kind": type(error).__name__})
