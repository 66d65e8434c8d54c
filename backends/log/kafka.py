"""Appends to the log on Kafka, through kafka-python.

kafka-python retries an idempotent append inside the client until the delivery timeout, so an error seen here is final
for that record; whether the broker has it may still be unknown, which de-duplication makes harmless.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka import errors as kafka_errors

from backends.log.kafka_admin import KafkaLogAdmin
from backends.log.kafka_client import CONNECT_MS, TOO_LARGE, open_client, translate, translated
from backends.log.protocol import LogError, LogUnavailable, RecordTooLarge, UnknownTopic

log = logging.getLogger(__name__)

DELIVERY_MS = 8_000
STUCK_SECONDS = DELIVERY_MS / 1000 + 5.0
MAX_BUFFERED_BYTES = 32 * 1024 * 1024
FRAMING_BYTES = 1024  # a record batch's header and the record's own fields

# After these the client's idempotent state is no longer the broker's: only a new producer goes on. A record that ran
# into the delivery timeout is one of them: kafka-python then gives its producer id up, and never asks for another.
_BROKEN = (
    kafka_errors.KafkaTimeoutError,
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.OutOfOrderSequenceNumberError,
    kafka_errors.UnknownProducerIdError,
    kafka_errors.InvalidProducerIdMappingError,
    kafka_errors.IllegalStateError,
)


class KafkaLogProducer:
    """See Producer. Connects when first asked something, and again after its idempotent state was lost."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._client: KafkaProducer | None = None
        self._limits: dict[str, int] = {}  # bytes a record of the topic may have, by topic; the topics known
        self._buffered = 0
        self._filling = 0  # how many fill the client's buffers at this moment
        self._under_way: deque[tuple[float, Future[int]]] = deque()  # with the time by which it should have ended
        self._closed = False

    def partitions(self, topic: str) -> int:
        client = self._connect()
        with translated():
            admin = KafkaLogAdmin(self._servers)
            try:
                count = admin.topics().get(topic)
                if count is None:
                    raise UnknownTopic(f"there is no topic {topic}: run zenstep topics create")
                limit = admin.max_message_bytes(topic) - FRAMING_BYTES
            finally:
                admin.close()
            _learn(client, topic, count)
        self._limits[topic] = limit
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
        """kafka-python's thread is woken when it has all of them, and so makes one request of them: each wake-up in
        between would cost two changes of the thread that has the interpreter, and a request for one record.
        """
        self._replace_if_stuck()
        client = self._client
        if client is None or topic not in self._limits:
            return [_failed(LogUnavailable("not connected")) for _ in records]
        with self._lock:
            self._filling += 1
        try:
            return [self._send(client, topic, partition, value) for partition, value in records]
        finally:
            with self._lock:
                self._filling -= 1
            client._sender.wakeup()

    def _send(self, client: KafkaProducer, topic: str, partition: int, value: bytes) -> "Future[int]":
        if len(value) > self._limits[topic]:
            return _failed(RecordTooLarge(f"{len(value)} bytes"))
        done: Future[int] = Future()
        with self._lock:
            room = not self._closed and self._buffered + len(value) <= MAX_BUFFERED_BYTES
            if room:
                self._buffered += len(value)
                self._under_way.append((time.monotonic() + STUCK_SECONDS, done))
        if not room:
            return _failed(LogUnavailable("closed" if self._closed else "the buffer is full"))
        done.add_done_callback(lambda _: self._release(len(value)))

        def acknowledged(metadata: Any) -> None:
            with suppress(InvalidStateError):  # it was taken for stuck
                done.set_result(metadata.offset)

        def failed(error: BaseException) -> None:
            self._replace_if_broken(client, error)
            known = translate(error)
            # The broker's "too large" takes every record under way with it, and it is not said whose it was.
            with suppress(InvalidStateError):
                done.set_exception(LogUnavailable(str(known)) if isinstance(known, RecordTooLarge) else known)

        try:
            sent = client.send(topic, value, partition=partition)
        except kafka_errors.KafkaTimeoutError as error:  # no metadata
            done.set_exception(translate(error))
        except (kafka_errors.KafkaError, ValueError, OSError) as error:
            failed(error)
        else:
            sent.add_callback(acknowledged)
            sent.add_errback(failed)
        return done

    def close(self, timeout: float) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            _close(client, timeout)

    def _connect(self) -> KafkaProducer:
        with self._connecting:
            if self._closed:
                raise LogUnavailable("closed")
            if self._client is None:
                with translated():
                    client: KafkaProducer = open_client(
                        KafkaProducer,
                        self._servers,
                        acks="all",
                        enable_idempotence=True,
                        delivery_timeout_ms=DELIVERY_MS,
                        linger_ms=0,
                        batch_size=256 * 1024,
                        # A broker or topic may take more than the client's default; the broker's word is final.
                        max_request_size=64 * 1024 * 1024,
                        # Metadata is there once `partitions` has answered; without it a send fails at once.
                        max_block_ms=0,
                        allow_auto_create_topics=False,
                        metrics_enabled=False,
                    )
                    for topic in self._limits:
                        _learn(client, topic)
                self._hold_wake_ups(client)
                self._client = client
            return self._client

    def _hold_wake_ups(self, client: KafkaProducer) -> None:
        """While somebody fills its buffers; who ends doing so wakes it."""
        wakeup = client._sender.wakeup
        client._sender.wakeup = lambda: None if self._filling else wakeup()

    def _replace_if_broken(self, client: KafkaProducer, error: BaseException) -> None:
        """The idempotent producer ends for good not only when fenced: a batch that the broker calls too large does it
        too. On kafka-python's own thread, so closing and connecting happen on another.
        """
        if isinstance(error, _BROKEN + TOO_LARGE):
            self._replace(client)

    def _replace_if_stuck(self) -> None:
        """What the client has neither acknowledged nor given up long after its own timeout it never will."""
        now = time.monotonic()
        with self._lock:
            while self._under_way and self._under_way[0][1].done():
                self._under_way.popleft()
            client = self._client
            stuck = client is not None and bool(self._under_way) and self._under_way[0][0] < now
            given_up = [done for _, done in self._under_way] if stuck else []
            if stuck:
                self._under_way.clear()
        if stuck and client is not None:
            log.error("the producer is stuck and replaced", extra={"records": len(given_up)})
            self._replace(client)
        for done in given_up:
            with suppress(InvalidStateError):
                done.set_exception(LogUnavailable("the producer is stuck"))

    def _replace(self, client: KafkaProducer) -> None:
        with self._lock:
            if self._client is not client:
                return
            self._client = None
        _in_background(lambda: _close(client, 1.0))
        _in_background(self._connect)

    def _release(self, size: int) -> None:
        with self._lock:
            self._buffered -= size


def _failed(error: LogError) -> "Future[int]":
    done: Future[int] = Future()
    done.set_exception(error)
    return done


def _close(client: KafkaProducer, timeout: float) -> None:
    """What is still under way then fails. kafka-python's close leaves its thread running where its flush times out."""
    with suppress(kafka_errors.KafkaError):
        client.close(timeout=timeout)
        return
    client._sender.force_close()
    client._closed = True  # or it would wait once more when it is garbage


def _learn(client: KafkaProducer, topic: str, partitions: int = 1) -> None:
    """Waits for the topic's metadata. `partitions_for` would wait `max_block_ms`, which is 0 for the sake of `send`.

    Of a topic that grew the client knows the old number for minutes, and refuses the new partitions.
    """
    client._wait_on_metadata(topic, CONNECT_MS)
    deadline = time.monotonic() + CONNECT_MS / 1000
    while len(client._metadata.partitions_for_topic(topic) or ()) < partitions:
        answered = threading.Event()
        client._metadata.request_update().add_both(lambda *_, answered=answered: answered.set())
        client._sender.wakeup()
        if not answered.wait(max(0.0, deadline - time.monotonic())):
            raise LogUnavailable(f"{topic} does not show its {partitions} partitions")


def _in_background(work: Callable[[], object]) -> None:
    def run() -> None:
        with suppress(LogError):  # the next `partitions` connects
            work()

    threading.Thread(target=run, daemon=True).start()
