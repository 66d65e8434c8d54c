"""From records to items: every event and small write with where it stood, and what could not be read set aside."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from backends.log import Record
from schemas import records
from schemas.ids import NIL
from schemas.records import Envelope, Heartbeat, Line, OfStep, Place, RecordEvent, Refused

WHOLE_LINE = -1


class Item(NamedTuple):
    """An event to be counted, or a small write such as a heartbeat, which has none. Ids lower-case, times epoch ms."""

    place: Place
    organisation: str
    id: str
    line: Line
    event: RecordEvent | None = None

    @property
    def received(self) -> int:
        return self.line.received

    @property
    def sent(self) -> int | None:
        return self.line.sent if isinstance(self.line, Envelope) else None

    @property
    def host(self) -> str | None:
        """The page's host of a heartbeat, empty where the browser did not say; None for all else."""
        return self.line.host or "" if isinstance(self.line, Heartbeat) else None

    @property
    def flow(self) -> str | None:
        """Which flow it is about, if any."""
        flow = self._about.flow if self._about is not None else None
        return flow.lower() if flow else None

    @property
    def step(self) -> str | None:
        """Which step of the flow it is about, if any."""
        step = self._about.step if self._about is not None else None
        return step.lower() if step else None

    @property
    def time(self) -> int | None:
        """The client's clock, uncorrected."""
        return self._about.time if self._about is not None else None

    @property
    def _about(self) -> RecordEvent | OfStep | None:
        return self.event if isinstance(self.line, Envelope | Heartbeat) else self.line


class Rejection(NamedTuple):
    """What this release will never count, why, and its bytes: a line that could be put into the topic as it is.

    A whole line is one row of the store's `rejected`; the ledger accounts for all of its events.
    """

    place: Place
    organisation: str
    reason: str
    received: int
    body: bytes
    events: int = 1


def read(batch: Iterable[Record]) -> tuple[list[Item], list[Rejection]]:
    """Never raises: a line that is not one of ours is a rejection, and the lines beside it are read."""
    items: list[Item] = []
    poison: list[Rejection] = []
    for record in batch:
        for number, line in records.lines(record.value):
            place = Place(record.topic, record.partition, record.offset, number, WHOLE_LINE)
            try:
                decoded = records.decode(line)
            except records.UNREADABLE:
                poison.append(_not_ours(place, line, record.timestamp))
                continue
            organisation = decoded.org.lower()
            if decoded.v != records.VERSION:
                reason = "newer_version" if decoded.v > records.VERSION else "unknown_version"
                events = len(decoded.events) if isinstance(decoded, Envelope) else 1
                poison.append(Rejection(place, organisation, reason, decoded.received, line, max(1, events)))
            elif isinstance(decoded, Refused):
                poison.append(Rejection(place, organisation, f"refused:{decoded.reason}", decoded.received, line))
            elif isinstance(decoded, Envelope):
                for index, event in enumerate(decoded.events):
                    where = place._replace(event=index)
                    items.append(Item(where, organisation, event.id.lower(), decoded, event))
            else:
                items.append(Item(place, organisation, decoded.id.lower(), decoded))
    return items, poison


def _not_ours(place: Place, line: bytes, timestamp: int) -> Rejection:
    """Parks a line of a newer release until this installation has it: replayed then, it counts."""
    newer = records.peek(line)
    if newer is None:
        return Rejection(place, NIL, "unreadable", timestamp, line)
    received = timestamp if newer.received is None else newer.received
    return Rejection(place, newer.organisation or NIL, "newer_version", received, line, newer.events)


def reject(item: Item, reason: str) -> Rejection:
    """Sets one item aside, with its line but without the other events of it."""
    line = item.line
    if isinstance(line, Envelope) and item.event is not None:
        line = msgspec.structs.replace(line, events=[item.event])
    return Rejection(item.place, item.organisation, reason, item.received, records.encode(line))
