"""Hands envelopes to the log: those that wait for one partition at the same time share a record.

Who hands one on is told when the log has acknowledged it, and only then: a 2xx after it is a promise kept.
"""

import asyncio
import logging
import threading
import time
from collections import defaultdict, deque
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import msgspec

from backends.log import LogError, LogUnavailable, Producer, RecordTooLarge
from backends.pace import Pace
from backends.telling import Told, Waiting, into
from ingest.breaker import Breaker
from ingest.grouping import grouped
from ingest.tally import Tally
from schemas.ids import partition_of
from service import metrics

log = logging.getLogger(__name__)

LINGER_SECONDS = 0.02
"""How long what comes while records are under way waits at most for them to come back, and so for company."""


PACE_SECONDS = 0.008
"""How soon after the last ones records are handed on: a flight costs as much as five of its records."""

COMPANY = 16
"""Requests in a flight after which the next one keeps all of that; see Pace."""


class _Waiting(Waiting[None]):
    organisation: str
    line: bytes
    events: int


@dataclass(slots=True, eq=False)
class _Flight:
    """The records that were handed on together: how many the log has not come back with, and since when."""

    records: int
    started: float
    late: asyncio.TimerHandle


class _Record(msgspec.Struct):
    flight: _Flight
    partition: int
    group: list[_Waiting]


class Enqueuer:
    """For one topic, on one event loop. `connect` before the first `put`.

    A request that comes alone is handed on in the next tick. The busier the log, the more share a
    record: the cost of one, on both sides and between them, is much that of a request.
    """

    def __init__(self, producer: Producer, topic: str, timeout: float, tally: Tally | None = None) -> None:
        self.topic = topic
        self.max_bytes: int | None = None  # of a record; not known before the log has answered
        self._producer = producer
        self._timeout = timeout
        self._tally = tally
        self._partitions = 0
        self._breakers: defaultdict[int, Breaker] = defaultdict(Breaker)
        self._waiting: defaultdict[int, list[_Waiting]] = defaultdict(list)
        self._next: asyncio.Handle | None = None  # when what waits is handed on
        self._under_way = 0
        self._pace = Pace(COMPANY)
        self._ended: deque[tuple[_Record, Future[int]]] = deque()  # filled by the log's thread
        self._thread = 0  # of the loop
        self._told = False  # that there is something in it
        self._acknowledged = metrics.records_acknowledged.labels(topic)

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

    def hand_on(self, organisation: str, line: bytes, events: int, told: Told[None]) -> None:
        """`told` hears when it is written, LogUnavailable where that is not known within the timeout, RecordTooLarge.

        LogUnavailable at once where the log has not answered yet or the partition has failed a moment ago.
        """
        if not self._partitions:
            told(LogUnavailable("the log has not answered yet"))
            return
        partition = partition_of(organisation, self._partitions)
        if not self._breakers[partition].allows():
            told(LogUnavailable("the partition has failed a moment ago"))
            return
        self._waiting[partition].append(_Waiting(told, organisation, line, events))
        if self._next is None:
            self._next = self._schedule(asyncio.get_running_loop())

    def put(self, organisation: str, line: bytes, events: int = 1) -> asyncio.Future[None]:
        """The same for who can wait: what is heard otherwise is raised."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.hand_on(organisation, line, events, into(done))
        return done

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> asyncio.Handle:
        if self._under_way:
            return loop.call_later(LINGER_SECONDS, self._flush)
        return self._pace.schedule(loop, PACE_SECONDS, self._flush)

    def _flush(self) -> None:
        """Hands on all that waits."""
        self._next = None
        self._thread = threading.get_ident()
        loop = asyncio.get_running_loop()
        waiting, self._waiting = self._waiting, defaultdict(list)
        self._pace.sent(loop, sum(map(len, waiting.values())))
        groups = [
            (partition, group)
            for partition, theirs in waiting.items()
            for group in grouped(theirs, lambda one: len(one.line), self.max_bytes or 0)
        ]
        late = loop.call_later(self._timeout, self._give_up, groups)
        flight = _Flight(len(groups), time.perf_counter(), late)
        self._under_way += len(groups)
        values = [(partition, b"\n".join([waiting.line for waiting in group])) for partition, group in groups]
        results = self._producer.produce_all(self.topic, values)
        for (partition, group), result in zip(groups, results, strict=True):
            result.add_done_callback(partial(self._tell, loop, _Record(flight, partition, group)))

    def _tell(self, loop: asyncio.AbstractEventLoop, record: _Record, result: Future[int]) -> None:
        """On the log's thread, which may be the loop's. The loop is woken once for all that ends before it looks."""
        self._ended.append((record, result))
        if not self._told:
            self._told = True
            if threading.get_ident() == self._thread:
                loop.call_soon(self._finish_ended)
            else:
                loop.call_soon_threadsafe(self._finish_ended)

    def _finish_ended(self) -> None:
        self._told = False  # before it looks: what ends from now on tells again
        while self._ended:
            self._finish(*self._ended.popleft())
        if self._next is not None and not self._under_way:
            self._next.cancel()
            self._next = self._schedule(asyncio.get_running_loop())

    def _finish(self, record: _Record, result: Future[int]) -> None:
        flight, partition = record.flight, record.partition
        self._under_way -= 1
        flight.records -= 1
        if not flight.records:
            flight.late.cancel()
        failure = result.exception()
        error = failure if failure is None or isinstance(failure, LogError) else LogUnavailable(type(failure).__name__)
        if failure is None:
            self._breakers[partition].succeeded()
            metrics.produce_seconds.observe(time.perf_counter() - flight.started)
            self._acknowledged.inc()
        else:
            self._failed(partition, failure)
        for waiting in record.group:
            if error is None and self._tally is not None:
                self._tally.add(waiting.organisation, self.topic, partition, "acknowledged", waiting.events)
            waiting.tell(error)

    def _failed(self, partition: int, error: BaseException) -> None:
        if not isinstance(error, RecordTooLarge):
            self._breakers[partition].failed()
        metrics.records_failed.labels(self.topic).inc()
        log.warning("record not acknowledged", extra={"topic": self.topic, "kind": type(error).__name__})

    def _give_up(self, groups: list[tuple[int, list[_Waiting]]]) -> None:
        """Nobody waits any longer for what has not come back."""
        for partition, group in groups:
            late = [waiting for waiting in group if waiting.told is not None]
            if late:
                self._breakers[partition].failed()
            for waiting in late:
                waiting.tell(LogUnavailable("no acknowledgement in time"))
