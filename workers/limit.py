"""How much poison is too much: beyond it the fault is not in the events, and going on would set everything aside.

Counted are only reasons that no client with a valid key can cause, so that no page can stop a worker: not flows that
are unknown, nor events that are too old, nor what the edge refused. Pure.
"""

import math
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

REASONS = frozenset({"unreadable", "newer_version", "unknown_version", "invalid", "poison", "unknown_organisation"})
WINDOW = 10_000  # events that the share is of, at least

Partition = tuple[str, int]


class Fate(NamedTuple):
    """What became of an event, or of a whole line of so many: why it was set aside, None where it was not."""

    topic: str
    partition: int
    offset: int
    reason: str | None
    events: int = 1


class TooMuchPoison(Exception):
    """So much would be set aside that somebody has to look; the message says what, where, and what may be done."""

    def __init__(self, what: str, setting: str) -> None:
        super().__init__(
            f"{what}; nothing of this batch is written. Upgrade this worker if they are of a newer release, else look "
            f"at them; to have them set aside and go on, raise {setting}"
        )


class Row(NamedTuple):
    """Poison of a partition without anything good in between."""

    events: int
    first: int  # offset
    reasons: Counter[str]

    def longer(self, reason: str, events: int) -> "Row":
        return Row(self.events + events, self.first, self.reasons + Counter({reason: events}))


class Weighed(NamedTuple):
    """A batch: the row that each of its partitions ends in, if any, its poison and its events."""

    rows: Mapping[Partition, Row | None]
    poison: int
    events: int


class Limit:
    """`weigh` a batch before its commit, `keep` the result after it: a batch put off is not counted twice.

    Batches of different partitions may be weighed at the same time. A worker that starts begins to count anew. Without
    numbers there is no limit.
    """

    def __init__(self, in_a_row: float = math.inf, share: float = math.inf) -> None:
        self.in_a_row = in_a_row
        self._share = share
        self._rows: dict[Partition, Row | None] = {}
        self._batches: Sequence[tuple[int, int]] = ()  # poison and events of the latest
        self._keeping = threading.Lock()

    def weigh(self, fates: Iterable[Fate]) -> Weighed:
        """The fates of a batch's events, in the order of each partition. Raises TooMuchPoison."""
        rows: dict[Partition, Row | None] = {}
        reasons: Counter[str] = Counter()
        total = 0
        where = ""
        for fate in fates:
            total += fate.events
            partition = (fate.topic, fate.partition)
            if fate.reason not in REASONS:
                rows[partition] = None
                continue
            reasons[fate.reason] += fate.events
            before = rows[partition] if partition in rows else self._rows.get(partition)
            row = before or Row(0, fate.offset, Counter())
            rows[partition] = row = row.longer(fate.reason, fate.events)
            where = f"{fate.topic}[{fate.partition}] offset {fate.offset}"
            if row.events >= self.in_a_row:
                what = f"{row.events} events in a row would be set aside ({_listed(row.reasons)})"
                raise TooMuchPoison(f"{what}, from offset {row.first} to {where}", "ZENSTEP_POISON_IN_A_ROW")
        weighed = Weighed(rows, reasons.total(), total)
        batches = _latest([*self._batches, (weighed.poison, weighed.events)])
        poison, events = (sum(column) for column in zip(*batches, strict=True))
        if where and events >= WINDOW and poison >= self._share * events:
            what = f"{poison} of the last {events} events would be set aside (lately {_listed(reasons)})"
            raise TooMuchPoison(f"{what}, lately of {where}", "ZENSTEP_POISON_SHARE")
        return weighed

    def keep(self, weighed: Weighed) -> None:
        """The batch that was weighed is committed."""
        with self._keeping:
            self._rows.update(weighed.rows)
            self._batches = _latest([*self._batches, (weighed.poison, weighed.events)])


def _latest(batches: Iterable[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """As few of the latest batches as have WINDOW events."""
    kept = deque(batches)
    total = sum(events for _, events in kept)
    while total - kept[0][1] >= WINDOW:
        total -= kept.popleft()[1]
    return tuple(kept)


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {n}" for reason, n in sorted(reasons.items()))
