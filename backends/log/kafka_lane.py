"""One partition's records on their way to Kafka: what waits, and the one batch that is under way.

Kafka numbers an idempotent producer's records of a partition and takes each number once, in order. With one batch of a
partition under way at a time, sending it again is always right: whatever became of it, the next number is known.
"""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from backends.log import kafka_frames as frames
from backends.log.kafka_frames import Identity

RECORD_BYTES = 32
"""A record's own fields, at most."""


@dataclass(slots=True, eq=False)
class Append:
    """One record. `expires` by the loop's clock; one that is `alone` shares no batch."""

    value: bytes
    done: "Future[int]"
    expires: float
    alone: bool = False


@dataclass(slots=True, eq=False)
class Batch:
    """Records that are appended together or not at all."""

    lane: "Lane"
    appends: list[Append]
    identity: Identity
    content: bytes


@dataclass(slots=True, eq=False)
class Lane:
    """Of one topic and partition."""

    topic: str
    partition: int
    waiting: deque[Append] = field(default_factory=deque)
    batch: Batch | None = None  # the oldest records: under way, or to be sent again
    under_way: bool = False
    _identity: Identity | None = None
    _sequence: int = 0

    @property
    def wants(self) -> bool:
        """Whether there is something to be sent now."""
        return not self.under_way and (self.batch is not None or bool(self.waiting))

    def next(self, identity: Identity, most_bytes: int, epoch_ms: int) -> Batch:
        """What is to be sent, which is then under way: again what was sent before, or what waits, as much as fits."""
        self.under_way = True
        if self.batch is None:
            if self._identity != identity:
                self._identity, self._sequence = identity, 0
            appends = self._take(most_bytes)
            content = frames.batch([one.value for one in appends], epoch_ms, identity, self._sequence)
            self.batch = Batch(self, appends, identity, content)
        return self.batch

    def appended(self) -> list[Append]:
        """The batch is in the log, and its records are these."""
        gone = self.given_up()
        self._sequence = (self._sequence + len(gone)) & 0x7FFFFFFF
        return gone

    def given_up(self) -> list[Append]:
        """The batch is not sent again, at least not as it is. Whether it is in the log may not be known: the next one
        needs another identity, for under this one it would be taken for the same.
        """
        self.under_way = False
        batch, self.batch = self.batch, None
        return batch.appends if batch is not None else []

    def put_back(self, appends: Iterable[Append]) -> None:
        """To the front of what waits."""
        self.waiting.extendleft(reversed(list(appends)))

    def expired(self, now: float) -> list[Append]:
        """Gives up what has waited for too long. A batch is as old as its oldest record."""
        gone: list[Append] = []
        if self.batch is not None and self.batch.appends[0].expires <= now:
            gone += self.given_up()
        while self.batch is None and self.waiting and self.waiting[0].expires <= now:
            gone.append(self.waiting.popleft())
        return gone

    @property
    def oldest(self) -> Append | None:
        """Who will have waited for too long first."""
        if self.batch is not None:
            return self.batch.appends[0]
        return self.waiting[0] if self.waiting else None

    def _take(self, most_bytes: int) -> list[Append]:
        taken = [self.waiting.popleft()]
        size = len(taken[0].value) + RECORD_BYTES
        while self.waiting and not taken[0].alone and not self.waiting[0].alone:
            size += len(self.waiting[0].value) + RECORD_BYTES
            if size > most_bytes:
                break
            taken.append(self.waiting.popleft())
        return taken
