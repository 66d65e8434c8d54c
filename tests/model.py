"""The numbers by brute force: every event in memory, plain sums, no cells, no sketches. What the store is held to.

It shares nothing with the code it judges but the types of records: clocks, scope, de-duplication and funnels are
written here again, from the contract.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from schemas.records import Envelope, RecordEvent

MINUTE, DAY = 60_000, 86_400_000
COUNTED_TYPES = {"view": "views", "complete": "completions", "skip": "skips", "dismiss": "dismissals"}


class Counted(NamedTuple):
    organisation: str
    at: int
    event: RecordEvent

    @property
    def person(self) -> str | None:
        if self.event.user:
            return f"user {self.event.user}"
        return f"anonymous {self.event.anon}" if self.event.anon else None


class Session(NamedTuple):
    first_at: int
    started_at: int | None
    completed: bool
    dismissed: bool
    steps: set[str]
    furthest: str | None


class Model:
    """Takes envelopes in the order they are counted in. `flows` gives the ids of each flow's steps, in order."""

    def __init__(self, flows: Mapping[tuple[str, str], Sequence[str]]) -> None:
        self._flows = flows
        self._organisations = {organisation for organisation, _ in flows}
        self._ids: set[tuple[str, str]] = set()
        self.counted: list[Counted] = []
        self.outcomes: Counter[str] = Counter()

    def take(self, envelope: Envelope) -> None:
        for event in envelope.events:
            self.outcomes[self._outcome(envelope, event)] += 1

    def _outcome(self, envelope: Envelope, event: RecordEvent) -> str:
        if envelope.org not in self._organisations:
            return "rejected:unknown_organisation"
        if event.flow is not None:
            steps = self._flows.get((envelope.org, event.flow))
            if steps is None:
                return "rejected:unknown_flow"
            if event.step is not None and event.step not in steps:
                return "rejected:unknown_step"
        at = envelope.received
        if event.time is not None:
            at = event.time
            if envelope.sent is not None and abs(envelope.received - envelope.sent) > MINUTE:
                at += envelope.received - envelope.sent
            if at > envelope.received + MINUTE:
                at = envelope.received
            if at < envelope.received - 7 * DAY:
                return "rejected:too_old"
        if (envelope.org, event.id) in self._ids:
            return "duplicate"
        self._ids.add((envelope.org, event.id))
        self.counted.append(Counted(envelope.org, at, event))
        return "counted"

    def analytics(
        self, organisation: str, flow: str, start: int, end: int, interval: str, zone: ZoneInfo
    ) -> dict[str, Any]:
        """`totals`, `steps`, `series` and `customEvents` of [start, end), epoch ms; without the median."""
        mine = [c for c in self.counted if c.organisation == organisation and c.event.flow == flow]
        steps = self._flows[organisation, flow]
        sessions = _sessions(mine, steps)
        inside = [c for c in mine if start <= c.at < end]
        cohort = [s for s in sessions if s.started_at is not None and start <= s.started_at < end]
        custom = [
            c
            for c in self.counted
            if c.organisation == organisation
            and c.event.type == "custom"
            and c.event.flow in (flow, None)
            and start <= c.at < end
        ]
        return {
            "totals": {
                **_numbers(mine, sessions, start, end),
                "completionRate": _rate(sum(s.completed for s in cohort), len(cohort)),
                "dismissRate": _rate(sum(s.dismissed for s in cohort), len(cohort)),
            },
            "steps": [_step(step, inside, cohort) for step in steps],
            "series": [
                {"start": label, **_numbers(mine, sessions, a, b)}
                for label, a, b in _intervals(start, end, interval, zone)
            ],
            "customEvents": _custom(custom),
        }


def _sessions(events: Iterable[Counted], steps: Sequence[str]) -> list[Session]:
    by_id: dict[str, list[Counted]] = defaultdict(list)
    for counted in events:
        if counted.event.session:
            by_id[counted.event.session].append(counted)
    found = []
    for theirs in by_id.values():
        views = [c for c in theirs if c.event.type == "view"]
        seen = {c.event.step for c in views if c.event.step}
        found.append(
            Session(
                first_at=min(c.at for c in theirs),
                started_at=min((c.at for c in views), default=None),
                completed=any(c.event.type == "complete" and c.event.step is None for c in theirs),
                dismissed=any(c.event.type == "dismiss" for c in theirs),
                steps=seen,
                furthest=max(seen, key=steps.index, default=None),
            )
        )
    return found


def _numbers(events: Iterable[Counted], sessions: Iterable[Session], start: int, end: int) -> dict[str, int]:
    inside = [c for c in events if start <= c.at < end]
    kinds = Counter(c.event.type for c in inside)
    whole = Counter(c.event.type for c in inside if c.event.step is None)
    return {
        "views": whole["view"],
        "starts": sum(1 for s in sessions if s.started_at is not None and start <= s.started_at < end),
        "completions": whole["complete"],
        "dismissals": kinds["dismiss"],
        "skips": kinds["skip"],
        "sessions": sum(1 for s in sessions if start <= s.first_at < end),
        "uniqueUsers": _people(inside),
    }


def _step(step: str, inside: Iterable[Counted], cohort: Sequence[Session]) -> dict[str, Any]:
    events = [c for c in inside if c.event.step == step]
    kinds = Counter(c.event.type for c in events)
    saw = [s for s in cohort if step in s.steps]
    dropped = sum(1 for s in saw if s.furthest == step and not s.completed)
    return {
        "stepId": step,
        **{name: kinds[kind] for kind, name in COUNTED_TYPES.items()},
        "sessions": len(saw),
        "uniqueUsers": _people(events),
        "dropOff": dropped,
        "dropOffRate": _rate(dropped, len(saw)),
    }


def _custom(events: Sequence[Counted]) -> list[dict[str, Any]]:
    names = Counter(c.event.name or "" for c in events)
    return [
        {"name": name, "count": count, "uniqueUsers": _people([c for c in events if c.event.name == name])}
        for name, count in sorted(names.items(), key=lambda item: (-item[1], item[0]))
    ]


def _people(events: Iterable[Counted]) -> int:
    return len({c.person for c in events if c.person})


def _rate(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _intervals(start: int, end: int, interval: str, zone: ZoneInfo) -> list[tuple[str, int, int]]:
    """Walks quarter by quarter and begins an interval wherever the local day or hour changes."""
    found: list[tuple[str, int, int]] = []
    before = None
    for at in range(start, end, 900_000):
        local = datetime.fromtimestamp(at / 1000, UTC).astimezone(zone)
        label = local.date() if interval == "day" else (local.date(), local.hour, local.utcoffset() or timedelta())
        if label != before:
            found.append((local.isoformat(), at, at))
            before = label
        found[-1] = (found[-1][0], found[-1][1], at + 900_000)
    return found
