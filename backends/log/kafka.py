"""Appends to the log on Kafka, from an event loop: the caller's own, or one on a thread.

An append is tried until the delivery timeout, so an error seen here is final for that record; whether the broker has
it may still be unknown, which de-duplication makes harmless.
"""

import asyncio
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress

from kafka import KafkaAdminClient

from backends.log.kafka_admin import KafkaLogAdmin
from backends.log.kafka_appender import Appender, Cluster
from backends.log.kafka_client import open_client, translated
from backends.log.protocol import LogError, LogUnavailable, RecordTooLarge, UnknownTopic

DELIVERY_MS = 8_000
FRAMING_BYTES = 1024  # a record batch's header and the record's own fields
CLOSE_SECONDS = 1.0  # beyond what the caller gives


class KafkaLogProducer:
    """See Producer. Connects when there is something to append, again whenever it has to."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._lock = threading.Lock()
        self._limits: dict[str, int] = {}  # bytes a record of the topic may have, by topic; the topics known
        self._loop: asyncio.AbstractEventLoop | None = None
        self._appender: Appender | None = None  # of the loop, and touched only there
        self._loops_thread = 0
        self._own: threading.Thread | None = None
        self._closed = False

    def attach(self) -> None:
        with self._lock:
            if self._loop is not None:
                raise RuntimeError("it has an event loop already")
            self._loop = asyncio.get_running_loop()
            self._begin()

    def partitions(self, topic: str) -> int:
        if self._closed:
            raise LogUnavailable("closed")
        with translated(), closing(KafkaLogAdmin(self._servers)) as admin:
            count = admin.topics().get(topic)
            if count is None:
                raise UnknownTopic(f"there is no topic {topic}: run zenstep topics create")
            self._limits[topic] = admin.max_message_bytes(topic) - FRAMING_BYTES
        return count

    def max_record_bytes(self, topic: str) -> int:
        if topic not in self._limits:
            self.partitions(topic)
        return self._limits[topic]

    def ping(self, timeout: float) -> None:
        with translated():
            patience = int(timeout * 1000)
            options = {"bootstrap_timeout_ms": patience, "request_timeout_ms": patience}
            open_client(KafkaAdminClient, self._servers, **options).close()

    def produce(self, topic: str, partition: int, value: bytes) -> "Future[int]":
        return self.produce_all(topic, [(partition, value)])[0]

    def produce_all(self, topic: str, records: Sequence[tuple[int, bytes]]) -> "list[Future[int]]":
        limit = self._limits.get(topic)
        if limit is None or self._closed:
            return [_failed(LogUnavailable("closed" if self._closed else "not connected")) for _ in records]
        made: list[Future[int]] = []
        given: list[tuple[int, bytes, Future[int]]] = []
        for partition, value in records:
            if len(value) > limit:
                made.append(_failed(RecordTooLarge(f"{len(value)} bytes")))
                continue
            made.append(Future())
            given.append((partition, value, made[-1]))
        if self._loops_thread == threading.get_ident() and self._appender is not None:
            self._appender.append(topic, given)
        else:
            self._from_afar(topic, given)
        return made

    def close(self, timeout: float) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            loop, appender, own = self._loop, self._appender, self._own
        if loop is None or appender is None:
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(appender.close(timeout), loop).result(timeout + CLOSE_SECONDS)
        if own is not None:
            loop.call_soon_threadsafe(loop.stop)
            own.join(CLOSE_SECONDS)

    def _from_afar(self, topic: str, given: Sequence[tuple[int, bytes, "Future[int]"]]) -> None:
        with self._lock:
            closed = self._closed
            if not closed and self._loop is None:
                self._start_own()
        if closed or self._loop is None or self._appender is None:
            for _, _, done in given:
                done.set_exception(LogUnavailable("closed"))
            return
        self._loop.call_soon_threadsafe(self._appender.append, topic, given)

    def _start_own(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        async def begin() -> None:
            self._begin()
            ready.set()

        def run() -> None:
            begun = loop.create_task(begin())
            loop.run_forever()
            begun.cancel()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

        self._own = threading.Thread(target=run, name="kafka-log", daemon=True)
        self._own.start()
        ready.wait()

    def _begin(self) -> None:
        self._loops_thread = threading.get_ident()
        self._appender = Appender(self._ask, self._limits, DELIVERY_MS / 1000)

    def _ask(self, topics: Collection[str]) -> Cluster:
        with translated(), closing(KafkaLogAdmin(self._servers)) as admin:
            return admin.cluster(topics)


def _failed(error: LogError) -> "Future[int]":
    done: Future[int] = Future()
    done.set_exception(error)
    return done
