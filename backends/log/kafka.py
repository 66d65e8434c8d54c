"""The log on Kafka, through kafka-python: what may be asked of it, and how its errors read here.

kafka-python retries an idempotent append inside the client until the delivery timeout, so an error seen here is final
for that record; whether the broker has it may still be unknown, which de-duplication makes harmless.
"""

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from backends.log.protocol import LogError, LogUnavailable, RecordTooLarge, UnknownTopic

log = logging.getLogger(__name__)

REQUEST_MS = 4_000
DELIVERY_MS = 8_000
CONNECT_MS = 4_000
STUCK_SECONDS = DELIVERY_MS / 1000 + 5.0
GROW_SECONDS = 10.0
MAX_BUFFERED_BYTES = 32 * 1024 * 1024
FRAMING_BYTES = 1024  # a record batch's header and the record's own fields

COMMON: dict[str, Any] = {
    "request_timeout_ms": REQUEST_MS,
    "bootstrap_timeout_ms": CONNECT_MS,
    "reconnect_backoff_ms": 50,
    "reconnect_backoff_max_ms": 1_000,
}

_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
_FINAL = (kafka_errors.AuthorizationError, kafka_errors.UnsupportedVersionError, kafka_errors.KafkaConfigurationError)
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


def translate(error: BaseException) -> LogError:
    """Kafka's error in this protocol's words."""
    name = type(error).__name__  # kafka-python's own errors begin with it already
    text = str(error) if str(error).startswith(name) else f"{name}: {error}" if str(error) else name
    if isinstance(error, _TOO_LARGE):
        return RecordTooLarge(text)
    if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
        return UnknownTopic(f"{text}: run zenstep topics create")
    if isinstance(error, _FINAL):
        return LogError(text)
    return LogUnavailable(text)


@contextmanager
def translated() -> Iterator[None]:
    """Raises kafka-python's errors, and the sockets', as LogErrors."""
    try:
        yield
    except (kafka_errors.KafkaError, OSError) as error:
        raise translate(error) from error


def open_client(kind: Any, servers: str, **options: Any) -> Any:
    """A client of kafka-python's. Where it cannot connect, its constructor would leave its thread running for ever."""
    client = kind.__new__(kind)
    try:
        client.__init__(bootstrap_servers=servers.split(","), **COMMON | options)
    except BaseException:
        if network := getattr(client, "_client", None):
            network.close()
        raise
    return client


def as_identity(topic_id: object) -> str | None:
    """A topic's id as text; None of a broker before 2.8, whose topics have none."""
    return str(topic_id) if topic_id and str(topic_id) != str(uuid.UUID(int=0)) else None


class KafkaLogAdmin:
    """Makes and describes topics."""

    def __init__(self, servers: str) -> None:
        with translated():
            self._client = open_client(KafkaAdminClient, servers)

    def create_topic(self, topic: str, partitions: int, replication: int) -> bool:
        """See Admin. The broker stamps records as it appends them, so that their times never fall."""
        new = {
            topic: {
                "num_partitions": partitions,
                "replication_factor": replication,
                "configs": {"message.timestamp.type": "LogAppendTime"},
            }
        }
        with translated():
            try:
                self._client.create_topics(new, wait_for_metadata=True)
            except kafka_errors.TopicAlreadyExistsError:
                return False
        return True

    def topics(self) -> dict[str, int]:
        with translated():
            return {t["name"]: len(t["partitions"]) for t in self._client.describe_topics()}

    def identities(self) -> dict[str, str]:
        with translated():
            found = ((t["name"], t.get("topic_id")) for t in self._client.describe_topics())
            return {name: identity for name, given in found if (identity := as_identity(given)) is not None}

    def add_partitions(self, topic: str, total: int) -> bool:
        has = self.topics().get(topic)
        if has is None:
            raise UnknownTopic(f"there is no topic {topic}: run zenstep topics create")
        if has > total:
            raise LogError(f"{topic} has {has} partitions already, and none can be taken away")
        if has == total:
            return False
        with translated():
            self._client.create_partitions({topic: total})
        deadline = time.monotonic() + GROW_SECONDS
        while self.topics().get(topic, 0) < total:
            if time.monotonic() > deadline:
                raise LogUnavailable(f"{topic} does not show its new partitions")
            time.sleep(0.05)
        return True

    def config(self, topic: str, *names: str) -> dict[str, str]:
        """These settings of the topic, its own or the broker's."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=list(names))
        with translated():
            described = self._client.describe_configs([resource], config_filter="all")
        return {name: str(described["topic"][topic][name]["value"]) for name in names}

    def max_message_bytes(self, topic: str) -> int:
        """The topic's own `max.message.bytes`."""
        return int(self.config(topic, "max.message.bytes")["max.message.bytes"])

    def close(self) -> None:
        self._client.close()


class KafkaLogProducer:
    """See Producer. Connects when first asked something, and again after its idempotent state was lost."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._client: KafkaProducer | None = None
        self._limits: dict[str, int] = {}  # bytes a record of the topic may have, by topic; the topics known
        self._buffered = 0
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
        self.partitions(topic)
        return self._limits[topic]

    def ping(self, timeout: float) -> None:
        with translated():
            patience = int(timeout * 1000)
            options = {"bootstrap_timeout_ms": patience, "request_timeout_ms": patience}
            open_client(KafkaAdminClient, self._servers, **options).close()

    def produce(self, topic: str, partition: int, value: bytes) -> "Future[int]":
        done: Future[int] = Future()
        self._replace_if_stuck()
        client = self._client
        if client is None or topic not in self._limits:
            done.set_exception(LogUnavailable("not connected"))
            return done
        if len(value) > self._limits[topic]:
            done.set_exception(RecordTooLarge(f"{len(value)} bytes"))
            return done
        with self._lock:
            room = not self._closed and self._buffered + len(value) <= MAX_BUFFERED_BYTES
            if room:
                self._buffered += len(value)
                self._under_way.append((time.monotonic() + STUCK_SECONDS, done))
        if not room:
            done.set_exception(LogUnavailable("closed" if self._closed else "the buffer is full"))
            return done
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
                    client = KafkaProducer(
                        bootstrap_servers=self._servers.split(","),
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
                        **COMMON,
                    )
                    for topic in self._limits:
                        _learn(client, topic)
                self._client = client
            return self._client

    def _replace_if_broken(self, client: KafkaProducer, error: BaseException) -> None:
        """The idempotent producer ends for good not only when fenced: a batch that the broker calls too large does it
        too. On kafka-python's own thread, so closing and connecting happen on another.
        """
        if isinstance(error, _BROKEN + _TOO_LARGE):
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
