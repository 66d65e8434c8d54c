"""From records to items: every event and small write with where it stood, and what could not be read set aside."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from backends.log import Record
from schemas import records
from schemas.ids import NIL
from schemas.records import Envelope, Heartbeat, Line, OfStep, Place, RecordEvent, Refused
from workers import clock

WHOLE_LINE = -1


Account = tuple[str, str, int]
"""Whose events the ledger counts, and of where: organisation, topic, partition."""


class Item(msgspec.Struct, gc=False):
    """An event to be counted, or a small write such as a heartbeat, which has none. Ids lower-case, times epoch ms."""

    account: Account
    record: Record
    number: int  # of its line in the record
    index: int  # in its envelope; WHOLE_LINE of a small write
    organisation: str
    id: str
    line: Line
    event: RecordEvent | None
    flow: str | None  # which flow it is about, if any
    step: str | None  # which step of the flow it is about, if any
    time: int | None  # the client's clock, uncorrected
    sent: int | None
    # See workers/clock.py; `date` sets these.
    at: int = 0
    clamped: bool = False
    late: bool = False
    too_old: bool = False
    day: int = 0
    everywhere: bool = False

    def date(self) -> None:
        """Tells when it happened and which day to remember it under; see `date` of many."""
        time, sent, received = self.time, self.sent, self.line.received
        self.at, self.clamped, self.too_old = clock.happened(time, received, sent)
        self.late = received - self.at > clock.HOUR
        self.day, self.everywhere = clock.memory(self.id, time, received)

    @property
    def place(self) -> Place:
        return Place(self.record.topic, self.record.partition, self.record.offset, self.number, self.index)

    @property
    def host(self) -> str | None:
        """The page's host of a heartbeat, empty where the browser did not say; None for all else."""
        return self.line.host or "" if isinstance(self.line, Heartbeat) else None


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


class _Lower(dict[str, str]):
    """Ids in lower case, of those that come again and again one object each: its hash is then known."""

    def __missing__(self, id_: str) -> str:
        lower = self[id_] = id_.lower()
        return lower


def read(batch: Iterable[Record]) -> tuple[list[Item], list[Rejection]]:
    """Never raises: a line that is not one of ours is a rejection, and the lines beside it are read."""
    items: list[Item] = []
    poison: list[Rejection] = []
    places: list[tuple[Record, int]] = []
    lines: list[bytes] = []
    lower = _Lower()
    for record in batch:
        for number, line in records.lines(record.value):
            places.append((record, number))
            lines.append(line)
    for (record, number), line, decoded in zip(places, lines, records.decode_all(lines), strict=True):
        if decoded is None:
            poison.append(_not_ours(_whole(record, number), line, record.timestamp))
            continue
        organisation = lower[decoded.org]
        if decoded.v != records.VERSION:
            reason = "newer_version" if decoded.v > records.VERSION else "unknown_version"
            events = max(1, len(decoded.events)) if isinstance(decoded, Envelope) else 1
            poison.append(Rejection(_whole(record, number), organisation, reason, decoded.received, line, events))
        elif isinstance(decoded, Envelope):
            account, sent = (organisation, record.topic, record.partition), decoded.sent
            items += [
                Item(
                    account,
                    record,
                    number,
                    index,
                    organisation,
                    event.id.lower(),
                    decoded,
                    event,
                    lower[event.flow] if event.flow else None,
                    lower[event.step] if event.step else None,
                    event.time,
                    sent,
                )
                for index, event in enumerate(decoded.events)
            ]
        elif isinstance(decoded, Refused):
            reason = f"refused:{decoded.reason}"
            poison.append(Rejection(_whole(record, number), organisation, reason, decoded.received, line))
        else:
            items.append(_small(record, number, organisation, decoded))
    return items, poison


def date(items: Iterable[Item]) -> None:
    """Tells when each happened and which day to remember it under; not part of reading, which may not fail."""
    for item in items:
        time, sent, received = item.time, item.sent, item.line.received
        near = time is not None and received - clock.NEAR <= time <= received + clock.MINUTE
        if near and time is not None and (sent is None or abs(received - sent) <= clock.MINUTE):
            # As nearly all are. What `Item.date` would say, at a fraction of the cost.
            item.at, item.day = time, time // clock.DAY
            if time > received:
                item.everywhere = item.day > received // clock.DAY
            elif received - time > clock.HOUR:
                item.late = True
        else:
            item.date()


def _whole(record: Record, number: int) -> Place:
    return Place(record.topic, record.partition, record.offset, number, WHOLE_LINE)


def _small(record: Record, number: int, organisation: str, line: Heartbeat | OfStep) -> Item:
    flow, step, time = (None, None, None) if isinstance(line, Heartbeat) else (line.flow, line.step, line.time)
    return Item(
        (organisation, record.topic, record.partition),
        record,
        number,
        WHOLE_LINE,
        organisation,
        line.id.lower(),
        line,
        None,
        flow.lower() if flow else None,
        step.lower() if step else None,
        time,
        None,
    )


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
    return Rejection(item.place, item.organisation, reason, line.received, records.encode(line))
