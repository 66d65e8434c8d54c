"""The fold: new events and what is known of their sessions in, additions to cells out. Pure, no I/O.

Counts, cohorts and steps are sums, so the order of events does not matter to them. A session is moved between cohort
cells by taking what it contributed before away and adding what it contributes now.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from backends.store.counting import SessionRow
from schemas import sketches
from schemas.tables import GRAINS, NO_FLOW, NO_STEP
from workers.items import Item

SessionKey = tuple[str, str, str]
Cell = tuple[Any, ...]

_COUNTER = {"view": 0, "complete": 1, "skip": 2, "dismiss": 3}


class Counted(NamedTuple):
    """A new event with the time (epoch ms) it counts at and, for a custom one, the name it counts under."""

    item: Item
    at: int
    name: str | None = None


class Positions(Protocol):
    def __call__(self, organisation: str, flow: str) -> Mapping[str, int]: ...


class Folded:
    """What a batch adds, by the primary keys of the tables in schemas/tables.py."""

    def __init__(self) -> None:
        self.counts: dict[Cell, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self.custom_events: dict[Cell, list[int]] = defaultdict(lambda: [0])
        self.cohorts: dict[Cell, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self.cohort_steps: dict[Cell, list[int]] = defaultdict(lambda: [0, 0])
        self.sketches: dict[Cell, list[Any]] = defaultdict(list)
        self.sessions: dict[SessionKey, SessionRow] = {}


def session_key(item: Item) -> SessionKey | None:
    """Which session of which flow an item belongs to; None where it names no session or no flow."""
    event = item.event
    if event is None or event.flow is None or not event.session:
        return None
    digest = hashlib.blake2b(event.session.encode(), digest_size=16).hexdigest()
    return item.organisation, event.flow.lower(), digest


def fold(events: Iterable[Counted], known: Mapping[SessionKey, SessionRow], positions: Positions) -> Folded:
    """`known` holds the sessions of these events that the store has."""
    folded = Folded()
    for counted in events:
        _count(folded, counted)
        _advance(folded, counted, known, positions)
    for key, row in folded.sessions.items():
        before = known.get(key)
        if before is not None:
            _contribute(folded, key, before, -1)
        _contribute(folded, key, row, +1)
        if row.started_at is not None and row.completed_at is not None and not row.timed:
            seconds = (row.completed_at - row.started_at) / 1000
            if seconds >= 0:
                folded.sessions[key] = row._replace(timed=True)
                for grain, bucket in _cells(row.started_at):
                    folded.sketches[key[0], key[1], grain, bucket, sketches.SECONDS, ""].append(seconds)
    for cells in (folded.cohorts, folded.cohort_steps):
        for cell in [cell for cell, added in cells.items() if not any(added)]:
            del cells[cell]
    return folded


def _cells(at: int) -> list[tuple[int, int]]:
    seconds = at // 1000
    return [(grain, seconds - seconds % grain) for grain in GRAINS]


def _count(folded: Folded, counted: Counted) -> None:
    organisation, event = counted.item.organisation, counted.item.event
    if event is None:
        return
    flow = event.flow.lower() if event.flow else NO_FLOW
    step = event.step.lower() if event.step and event.flow else NO_STEP
    user = f"u:{event.user}" if event.user else f"a:{event.anon}" if event.anon else None
    for grain, bucket in _cells(counted.at):
        cell = (organisation, flow, grain, bucket)
        if counted.name is not None:
            folded.custom_events[*cell, counted.name][0] += 1
            if user:
                folded.sketches[*cell, sketches.CUSTOM, counted.name].append(user)
        else:
            folded.counts[*cell, step][_COUNTER[event.type]] += 1
        if user and flow:
            folded.sketches[*cell, sketches.USERS, NO_STEP].append(user)
            if step:
                folded.sketches[*cell, sketches.USERS, step].append(user)


def _advance(folded: Folded, counted: Counted, known: Mapping[SessionKey, SessionRow], positions: Positions) -> None:
    key = session_key(counted.item)
    event = counted.item.event
    if key is None or event is None:
        return
    at = counted.at
    row = folded.sessions.get(key) or known.get(key) or SessionRow(first_at=at)
    row = row._replace(first_at=min(row.first_at, at))
    if event.type == "view":
        row = row._replace(started_at=at if row.started_at is None else min(row.started_at, at))
        step = event.step.lower() if event.step else None
        if step and step not in row.steps:
            row = row._replace(steps=(*row.steps, step))
        order = positions(key[0], key[1])
        row = row._replace(furthest=max(row.steps, key=lambda s: (order.get(s, -1), s), default=None))
    elif event.type == "complete" and event.step is None:
        row = row._replace(completed_at=at if row.completed_at is None else min(row.completed_at, at))
    elif event.type == "dismiss":
        row = row._replace(dismissed=True)
    folded.sessions[key] = row


def _contribute(folded: Folded, key: SessionKey, row: SessionRow, sign: int) -> None:
    """What a session is in the cohorts, added or taken away."""
    organisation, flow, _ = key
    for grain, bucket in _cells(row.first_at):
        folded.cohorts[organisation, flow, grain, bucket][0] += sign
    if row.started_at is None:
        return
    completed = row.completed_at is not None
    for grain, bucket in _cells(row.started_at):
        cohort = folded.cohorts[organisation, flow, grain, bucket]
        cohort[1] += sign
        cohort[2] += sign * completed
        cohort[3] += sign * row.dismissed
        for step in row.steps:
            cell = folded.cohort_steps[organisation, flow, grain, bucket, step]
            cell[0] += sign
            cell[1] += sign * (step == row.furthest and not completed)


def merge(kind: str, stored: bytes | None, values: list[Any]) -> bytes:
    """Puts a batch's users, or seconds, into a stored sketch of that kind."""
    return (
        sketches.add_seconds(stored, values)
        if kind == sketches.SECONDS
        else sketches.add_users(stored, dict.fromkeys(values))
    )
