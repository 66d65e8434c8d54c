"""The log's contract. Kafka and SQLite both keep it, and tests/test_log.py holds both to every sentence here."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol


class TopicPartition(NamedTuple):
    """One ordered sequence of records."""

    topic: str
    partition: int


class Record(NamedTuple):
    """One record as read: where it stands, when the log took it (epoch ms, never falling), and its bytes."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes


class LogError(Exception):
    """The log could not do it. Subclasses say whether trying again can help."""


class LogUnavailable(LogError):
    """The log is away or too slow; whether a record was written is unknown. Trying again is safe: ids de-duplicate."""


class RecordTooLarge(LogError):
    """The record is over the topic's limit and will never be taken."""


class UnknownTopic(LogError):
    """The topic does not exist; `zenstep topics create` makes it."""


class OffsetOutOfRange(LogError):
    """The offset asked for is not (or no longer) in the partition: an operator has to decide."""


class Producer(Protocol):
    """Appends records. Every method may be called from any thread; only `partitions`, `max_record_bytes`, `ping` and
    `close` block, and `close` not on the thread of the event loop it is attached to.
    """

    def attach(self) -> None:
        """From a running event loop, before anything is appended: what can be done on it needs no other thread."""

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises UnknownTopic, LogUnavailable."""

    def max_record_bytes(self, topic: str) -> int:
        """The largest value that one record of the topic may have, framing allowed for.

        As the last `partitions` of the topic found it, which is asked only where it never was. Raises as that does.
        """

    def ping(self, timeout: float) -> None:
        """Raises LogUnavailable if the log does not answer within `timeout` seconds."""

    def produce(self, topic: str, partition: int, value: bytes) -> "Future[int]":
        """Appends one record; the future holds its offset once it is durable, or a LogError.

        Never blocks and never raises: what cannot be buffered is a future that has failed with LogUnavailable.
        Callbacks of the future run on the log's own thread, or that of the loop it is attached to. Records of one
        partition are appended in call order.
        """

    def produce_all(self, topic: str, records: Sequence[tuple[int, bytes]]) -> "list[Future[int]]":
        """`produce` for each partition and value, in order; cheaper, since the log is told once of all of them."""

    def close(self, timeout: float) -> None:
        """Waits up to `timeout` seconds for what is under way; what is not durable then fails with LogUnavailable."""


class Consumer(Protocol):
    """Reads the partitions that the group assigns to this member. Not thread safe."""

    def poll(self, timeout: float, max_records: int) -> list[Record]:
        """Records in order within each partition, none after `timeout` seconds without any.

        None sooner than that is allowed where partitions were assigned: a worker that waits for nothing is ready.

        Takes part in the group: `on_revoke` and `on_assign` run inside this call, in that order, on its thread.
        The log reads on from the offset that `on_assign` returned for each partition. What `on_assign` raises comes
        out of this call, and the next one asks it again. Raises LogUnavailable, OffsetOutOfRange.
        """

    def assignment(self) -> set[TopicPartition]:
        """What this member holds now."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """The next poll reads on from there. The partition must be assigned."""

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tells the group's bookkeeping, for lag tools only: the store's offsets are the truth. Never raises."""

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset that is still there."""

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset that the next record will have."""

    def identities(self) -> dict[str, str]:
        """Which topic each of its names is at this moment: a topic made anew has another identity. Asks the log.

        Without those that are not there, and without any on a log that does not tell. Raises LogUnavailable.
        """

    def keep_alive(self, seconds: float) -> None:
        """Waits that long without reading, staying a member of the group, as a worker does while the store is away."""

    def close(self) -> None:
        """Leaves the group at once, so that others take over without waiting for a time-out."""


class Reader(Protocol):
    """Reads any range of any partition, in no group: what it does moves nobody's offsets. Not thread safe."""

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Raises UnknownTopic, LogUnavailable."""

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset that is still there."""

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset that the next record will have."""

    def offset_at(self, partition: TopicPartition, epoch_ms: int) -> int:
        """The offset of the first record that the log took at this time or later; the end where there is none."""

    def read(self, partition: TopicPartition, offset: int, max_records: int) -> list[Record]:
        """Up to so many records from this offset on, in order; none only at the end of the partition.

        Raises OffsetOutOfRange for an offset before the beginning or behind the end, LogUnavailable.
        """

    def kept_ms(self, topic: str) -> int | None:
        """How long a record of the topic may stay, at most; None where nothing removes it. Raises as `partitions`."""

    def close(self) -> None: ...


OnAssign = Callable[[list[TopicPartition]], Mapping[TopicPartition, int]]
OnRevoke = Callable[[list[TopicPartition]], None]


class Admin(Protocol):
    """Makes and describes topics."""

    def create_topic(self, topic: str, partitions: int, replication: int) -> bool:
        """True if it was made, False if it was there already. Raises LogUnavailable."""

    def topics(self) -> dict[str, int]:
        """Every topic and its number of partitions."""

    def identities(self) -> dict[str, str]:
        """As of Consumer, for every topic."""

    def add_partitions(self, topic: str, total: int) -> bool:
        """Grows the topic to so many; False if it has as many already. Raises LogError where it has more.

        The records that are there stay where they are. Raises UnknownTopic, LogUnavailable.
        """

    def close(self) -> None: ...
