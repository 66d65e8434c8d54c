"""A member of a Kafka consumer group.

kafka-python tells of rebalances on its own IO thread and swallows what a listener raises, so the listener here only
takes notes, and `poll` acts on them on the caller's thread.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import kafka
from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import OffsetAndMetadata

from backends.log.kafka_client import open_client, translated
from backends.log.kafka_questions import Questions
from backends.log.kafka_records import read_records
from backends.log.protocol import LogUnavailable, OffsetOutOfRange, OnAssign, OnRevoke, Record, TopicPartition

log = logging.getLogger(__name__)

SESSION_MS = 10_000
HEARTBEAT_MS = 1_000
MAX_POLL_INTERVAL_MS = 300_000
KEEP_ALIVE_SECONDS = 0.5
CLOSE_MS = 5_000


class _Notes(ConsumerRebalanceListener):  # type: ignore[misc]
    """What the group decided since the last look, in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gone: set[TopicPartition] = set()
        self._given: set[TopicPartition] = set()

    def on_partitions_revoked(self, revoked: Sequence[kafka.TopicPartition]) -> None:
        with self._lock:
            partitions = {TopicPartition(*tp) for tp in revoked}
            self._gone |= partitions
            self._given -= partitions

    def on_partitions_assigned(self, assigned: Sequence[kafka.TopicPartition]) -> None:
        with self._lock:
            self._given |= {TopicPartition(*tp) for tp in assigned}

    def take(self) -> tuple[set[TopicPartition], set[TopicPartition]]:
        with self._lock:
            taken = self._gone, self._given
            self._gone, self._given = set(), set()
        return taken


class KafkaLogConsumer:
    """See Consumer. Connects at the first poll, so that a worker may start before Kafka does."""

    def __init__(
        self, servers: str, group: str, topics: Sequence[str], on_assign: OnAssign, on_revoke: OnRevoke
    ) -> None:
        self._servers = servers
        self._group = group
        self._topics = list(topics)
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._notes = _Notes()
        self._client: KafkaConsumer | None = None
        self._questions: Questions | None = None
        self._held: set[TopicPartition] = set()
        self._unpositioned: set[TopicPartition] = set()
        self._moved: set[TopicPartition] = set()  # positioned after the last fetch: what it brought is not theirs

    def poll(self, timeout: float, max_records: int) -> list[Record]:
        client = self._connect()
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            found: list[Record] = []
            _resume_joining(client)
            with translated():
                try:
                    polled = client.poll(timeout_ms=int(left * 1000), max_records=max_records)
                except kafka_errors.NoOffsetForPartitionError:
                    polled = {}  # given to us a moment ago, and about to be positioned
                except kafka_errors.OffsetOutOfRangeError as error:
                    raise OffsetOutOfRange(str(error)) from error
            self._follow()
            for tp, records in polled.items():
                if TopicPartition(*tp) in self._held and TopicPartition(*tp) not in self._moved:
                    found += records
            if found or time.monotonic() >= deadline:
                return found

    def assignment(self) -> set[TopicPartition]:
        return set(self._held)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition in self._held and self._client is not None:
            with suppress(
                AssertionError, kafka_errors.IllegalStateError
            ):  # revoked since: its next owner asks the store
                self._client.seek(kafka.TopicPartition(*partition), offset)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self._client is None:
            return
        try:
            marks = {kafka.TopicPartition(*tp): OffsetAndMetadata(n, "", -1) for tp, n in offsets.items()}
            self._client.commit_async(marks)
        except kafka_errors.KafkaError as error:
            log.debug("commit for the lag tools failed", extra={"kind": type(error).__name__})

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._ask().beginning_offsets(partitions)

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self._ask().end_offsets(partitions)

    def identities(self) -> dict[str, str]:
        """Where it shows a topic with other partitions than the group knows, kafka-python is told to look too."""
        questions = self._ask()
        found = questions.identities()
        if self._client is not None:
            known = self._client._cluster
            there = questions.partitions()
            if any(len(known.partitions_for_topic(topic) or ()) != number for topic, number in there.items()):
                known.request_update()
        return found

    def keep_alive(self, seconds: float) -> None:
        """Polls with everything paused: heartbeats and rebalances go on, and nothing is read."""
        client = self._connect()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            paused = list(client.assignment())
            client.pause(*paused)
            positions = {tp: _position(client, tp) for tp in paused if TopicPartition(*tp) in self._held}
            _resume_joining(client)
            try:
                with translated(), suppress(kafka_errors.NoOffsetForPartitionError):
                    for tp in client.poll(timeout_ms=int(min(left, KEEP_ALIVE_SECONDS) * 1000)):
                        position = positions.get(tp)
                        if position is not None:
                            client.seek(tp, position)
            finally:  # what stayed paused would never be read again
                client.resume(*client.paused())

    def close(self) -> None:
        if self._client is not None:
            with suppress(kafka_errors.KafkaError):
                self._client.close(autocommit=False, timeout_ms=CLOSE_MS)
            self._client = None
        if self._questions is not None:
            self._questions.close()
            self._questions = None

    def _ask(self) -> Questions:
        if self._questions is None:
            self._questions = Questions(self._servers, self._topics)
        return self._questions

    def _connect(self) -> KafkaConsumer:
        if self._client is None:
            with translated():
                client = open_client(
                    KafkaConsumer,
                    self._servers,
                    group_id=self._group,
                    enable_auto_commit=False,
                    auto_offset_reset="none",
                    allow_auto_create_topics=False,
                    partition_assignment_strategy=(CooperativeStickyAssignor,),
                    session_timeout_ms=SESSION_MS,
                    heartbeat_interval_ms=HEARTBEAT_MS,
                    max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
                    metadata_max_age_ms=30_000,
                    fetch_max_wait_ms=250,
                    metrics_enabled=False,
                )
                read_records(client)
                client.subscribe(self._topics, listener=self._notes)
            self._client = client
        return self._client

    def _follow(self) -> None:
        """Acts on what the group decided during the last poll."""
        gone, given = self._notes.take()
        lost = gone & self._held
        if lost:
            self._on_revoke(sorted(lost))
        self._held -= gone
        self._unpositioned = (self._unpositioned - gone) | given
        self._moved = set(self._unpositioned)
        if self._unpositioned:
            offsets = self._on_assign(sorted(self._unpositioned))
            for tp in sorted(self._unpositioned):
                if self._client is None:
                    raise LogUnavailable("closed")
                self._client.seek(kafka.TopicPartition(*tp), offsets[tp])
            self._held |= self._unpositioned
            self._unpositioned = set()


def _position(client: KafkaConsumer, partition: kafka.TopicPartition) -> int | None:
    """Where it reads on. `KafkaConsumer.position` would look for committed offsets too, and fail for want of those of
    partitions that were given to us a moment ago and wait for the store to be positioned.
    """
    state = client._subscription.assignment.get(partition)
    return state.position.offset if state is not None and state.position is not None else None


def _resume_joining(client: KafkaConsumer) -> None:
    """Has kafka-python finish a join that the last poll left in flight.

    A join begun because the topic's metadata changed is forgotten when the poll times out before its answer: it no
    longer looks needed, its assignment is never taken, and heartbeats stay off until the broker evicts the member.
    Asking for the join again makes the next poll wait for the same answer.
    """
    coordinator = client._coordinator
    if coordinator._join_task is not None:
        coordinator.request_rejoin()
