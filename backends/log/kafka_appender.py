"""Appends to Kafka from an event loop: idempotent, to all in-sync replicas, one request a broker of all that waits.

kafka-python does the same on a thread of its own, at several times the cost where records are few: a request of theirs
changes the thread that has the interpreter four times.
"""

import asyncio
import logging
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from math import inf
from typing import NamedTuple

from kafka import errors as kafka_errors

from backends.log import kafka_frames as frames
from backends.log.kafka_client import CONNECT_MS, REQUEST_MS, TOO_LARGE, translate
from backends.log.kafka_connection import Connection
from backends.log.kafka_frames import Identity, Outcome
from backends.log.kafka_lane import Append, Batch, Lane
from backends.log.protocol import LogError, LogUnavailable

log = logging.getLogger(__name__)

MAX_BUFFERED_BYTES = 32 * 1024 * 1024
MAX_BATCH_BYTES = 512 * 1024
MAX_UNANSWERED_BYTES = 4 * 1024 * 1024
"""Of a broker. Its answer is to come in time over a slow connection too; when that many are out, the others wait."""
REPLICATE_MS = 3_000  # the broker answers by then, before its answer is too late for us
PAUSE = (0.1, 1.0)  # between attempts to get what sending lacks

_APPENDED = (kafka_errors.NoError.errno, kafka_errors.DuplicateSequenceNumberError.errno)
# The broker's numbers are no longer ours: the same records get new ones. What of them is there after all has its ids.
_LOST_COUNT = (
    kafka_errors.OutOfOrderSequenceNumberError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.UnknownProducerIdError,
    kafka_errors.InvalidProducerIdMappingError,
    kafka_errors.ProducerFencedError,
)


class Cluster(NamedTuple):
    """The node that leads each topic's partition, and the host and port of each node."""

    leaders: Mapping[tuple[str, int], int]
    brokers: Mapping[int, tuple[str, int]]


class Appender:
    """On one event loop: made and used there.

    `ask` blocks, and raises LogError; `limits` are the bytes that a topic takes at once, by topic; `patience` is how
    long a record is tried, in seconds.
    """

    def __init__(self, ask: Callable[[Collection[str]], Cluster], limits: Mapping[str, int], patience: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._ask = ask
        self._limits = limits
        self._patience = patience
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._wanting: dict[Lane, None] = {}  # those that have something to send, in the order they got it
        self._leaders: dict[tuple[str, int], int] = {}
        self._brokers: dict[int, tuple[str, int]] = {}
        self._connections: dict[int, Connection] = {}
        self._identity: Identity | None = None
        self._buffered = 0
        self._scheduled = False
        self._preparing: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[None] | None = None

    def append(self, topic: str, records: Sequence[tuple[int, bytes, "Future[int]"]]) -> None:
        """Partitions, values, and who is told the offset, or LogUnavailable, RecordTooLarge or another LogError."""
        expires = self._loop.time() + self._patience
        for partition, value, done in records:
            if self._closing is not None or self._buffered + len(value) > MAX_BUFFERED_BYTES:
                _tell(done, LogUnavailable("closed" if self._closing is not None else "the buffer is full"))
                continue
            self._buffered += len(value)
            lane = self._lanes.get((topic, partition))
            if lane is None:
                lane = self._lanes[topic, partition] = Lane(topic, partition)
            lane.waiting.append(Append(value, done, expires))
            self._wanting[lane] = None
        if self._wanting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._send)
        if self._expiry is None and self._buffered:
            self._expiry = self._loop.call_at(expires, self._expire)

    async def close(self, seconds: float) -> None:
        """Waits so long for what is under way; what is not durable then fails."""
        if self._closing is None:
            self._closing = self._loop.create_future()
        if self._buffered:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._closing), seconds)
        if self._preparing is not None:
            self._preparing.cancel()
        for lane in self._lanes.values():
            self._fail(lane, lane.expired(inf), LogUnavailable("closed"))
        if self._expiry is not None:
            self._expiry.cancel()
        for connection in list(self._connections.values()):
            connection.abort()

    def _send(self) -> None:
        """Each broker one request of all that can be sent to it."""
        self._scheduled = False
        ready: defaultdict[Connection, list[Batch]] = defaultdict(list)
        sizes: defaultdict[Connection, int] = defaultdict(int)
        now = time.time_ns() // 1_000_000
        lacking = False
        for lane in list(self._wanting):
            if not lane.wants:
                del self._wanting[lane]
                continue
            connection = self._connections.get(self._leaders.get((lane.topic, lane.partition), -1))
            if connection is None or self._identity is None:
                lacking = True
                continue
            if connection.unanswered_bytes + sizes[connection] > MAX_UNANSWERED_BYTES:
                continue  # until an answer comes
            del self._wanting[lane]
            most = min(MAX_BATCH_BYTES, self._limits.get(lane.topic, MAX_BATCH_BYTES))
            batch = lane.next(self._identity, most, now)
            ready[connection].append(batch)
            sizes[connection] += len(batch.content)
        for connection, batches in ready.items():
            topics: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
            for batch in batches:
                topics[batch.lane.topic].append((batch.lane.partition, batch.content))
            body = frames.produce(topics, REPLICATE_MS)
            connection.request(frames.PRODUCE, frames.PRODUCE_VERSION, body, partial(self._answered, batches))
        if lacking and self._preparing is None:
            self._preparing = self._loop.create_task(self._prepare())

    def _answered(self, batches: list[Batch], answer: bytes | None) -> None:
        outcomes: Mapping[tuple[str, int], Outcome] = {}
        if answer is not None:
            with suppress(struct.error, UnicodeDecodeError):  # then it is as if nothing had come
                outcomes = frames.produced(answer)
        for batch in batches:
            lane = batch.lane
            if lane.batch is batch:  # it was not given up meanwhile
                self._settle(batch, outcomes.get((lane.topic, lane.partition)))
            if lane.wants:
                self._wanting[lane] = None
        if self._wanting and not self._scheduled:
            self._send()

    def _settle(self, batch: Batch, outcome: Outcome | None) -> None:
        lane = batch.lane
        if outcome is not None and outcome.error in _APPENDED:
            for delta, append in enumerate(lane.appended()):
                self._buffered -= len(append.value)
                # Of what was appended long ago the broker does not say where.
                _tell(append.done, outcome.offset + delta if outcome.offset >= 0 else -1)
            self._tell_closing()
            return
        error = kafka_errors.for_code(outcome.error) if outcome is not None else kafka_errors.NetworkExceptionError
        if error.retriable:
            lane.under_way = False
            self._leaders.pop((lane.topic, lane.partition), None)  # asked for again, and not at once
            return
        self._forget(batch.identity)
        appends = lane.given_up()
        unclear = issubclass(error, TOO_LARGE) and len(appends) > 1  # it is not said whose it was
        if unclear:
            for append in appends:
                append.alone = True
        if unclear or issubclass(error, _LOST_COUNT):
            lane.waiting.extendleft(reversed(appends))
        else:
            self._fail(lane, appends, translate(error()))

    def _fail(self, lane: Lane, appends: list[Append], error: LogError) -> None:
        for append in appends:
            self._buffered -= len(append.value)
            _tell(append.done, error)
        if not lane.wants:
            self._wanting.pop(lane, None)
        self._tell_closing()

    def _forget(self, identity: Identity) -> None:
        """Another is asked for, under which every partition is numbered from nothing again."""
        if self._identity == identity:
            self._identity = None

    def _expire(self) -> None:
        now = self._loop.time()
        for lane in self._lanes.values():
            batch = lane.batch
            gone = lane.expired(now)
            if batch is not None and lane.batch is not batch:
                self._forget(batch.identity)
            self._fail(lane, gone, LogUnavailable("not acknowledged in time"))
            if lane.wants:
                self._wanting[lane] = None
        oldest = [append.expires for lane in self._lanes.values() if (append := lane.oldest) is not None]
        self._expiry = self._loop.call_at(min(oldest), self._expire) if oldest else None

    def _tell_closing(self) -> None:
        if self._closing is not None and not self._buffered and not self._closing.done():
            self._closing.set_result(None)

    async def _prepare(self) -> None:
        """Gets what sending lacks: leaders, connections to them, an identity. Tries until all that wants is sent."""
        pause = PAUSE[0]
        said = None
        try:
            while self._wanting:
                try:
                    await self._get_ready()
                except (LogError, OSError, TimeoutError) as error:
                    problem = str(error) or type(error).__name__
                    if problem != said:
                        log.warning("kafka not ready to append", extra={"problem": problem})
                    said = problem
                except Exception:  # what waits is tried until its own time is over, and fails then
                    log.exception("kafka not ready to append")
                self._send()
                # Even where all went: what fails at once again is not to be asked for again at once.
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE[1])
        finally:
            self._preparing = None

    async def _get_ready(self) -> None:
        """Raises LogError, OSError, TimeoutError; what can be had without what failed is there all the same."""
        lanes = [(lane.topic, lane.partition) for lane in self._wanting]
        if any(self._leaders.get(lane, -1) not in self._brokers for lane in lanes):
            cluster = await asyncio.to_thread(self._ask, {topic for topic, _ in lanes})
            self._leaders |= cluster.leaders
            self._brokers = dict(cluster.brokers)
        missing = {self._leaders.get(lane, -1) for lane in lanes} & self._brokers.keys() - self._connections.keys()
        failed = await asyncio.gather(*map(self._connect, missing), return_exceptions=True)
        if self._identity is None and self._connections:
            self._identity = await self._ask_identity(next(iter(self._connections.values())))
        for error in failed:
            if error is not None:
                raise error

    async def _connect(self, node: int) -> None:
        def lost(connection: Connection) -> None:
            if self._connections.get(node) is connection:
                del self._connections[node]

        try:
            async with asyncio.timeout(CONNECT_MS / 1000):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(REQUEST_MS / 1000, lost), *self._brokers[node]
                )
        except (OSError, TimeoutError):
            self._brokers.pop(node, None)  # another may lead by now, or it has another address
            raise
        self._connections[node] = connection

    async def _ask_identity(self, connection: Connection) -> Identity:
        answered: asyncio.Future[bytes | None] = self._loop.create_future()

        def tell(answer: bytes | None) -> None:
            if not answered.done():
                answered.set_result(answer)

        connection.request(frames.INIT_PRODUCER_ID, frames.INIT_PRODUCER_ID_VERSION, frames.init_producer_id(), tell)
        answer = await answered
        if answer is None:
            raise LogUnavailable("no identity: the connection ended")
        error, identity = frames.identity_of(answer)
        if error:
            raise translate(kafka_errors.for_code(error)())
        return identity


def _tell(done: "Future[int]", outcome: "int | LogError") -> None:
    with suppress(InvalidStateError):  # who waited for it has given up
        if isinstance(outcome, int):
            done.set_result(outcome)
        else:
            done.set_exception(outcome)
