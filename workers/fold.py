"""The fold: new events and what is known of their sessions in, additions to cells out. Pure, no I/O.

Counts, cohorts and steps are sums, so the order of events does not matter to them. A session is moved between cohort
cells by taking what it contributed before away and adding what it contributes now. All is folded by the quarter of an
hour; workers/days.py adds the days.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from backends.store.counting import SessionRow
from schemas import sketches
from schemas import tables as t
from schemas.tables import NO_FLOW, NO_STEP, OTHER_NAMES, QUARTER
from workers.items import Item
from workers.sessions import SessionKey, advance

Cell = tuple[Any, ...]
Users = dict[str, None]
"""A set that keeps the order of arrival, so that the same events make the same sketch."""

_QUARTER_MS = QUARTER * 1000
KIND = [column.name for column in t.sketches.primary_key].index("kind")
_COUNTER = {"view": 0, "complete": 1, "skip": 2, "dismiss": 3}


class Positions(Protocol):
    def __call__(self, organisation: str, flow: str) -> Mapping[str, int]: ...


class Folded:
    """What a batch adds, by the primary keys of the tables in schemas/tables.py."""

    def __init__(self) -> None:
        self.counts: dict[Cell, list[int]] = {}
        self.custom_events: dict[Cell, list[int]] = {}
        self.cohorts: dict[Cell, list[int]] = {}
        self.cohort_steps: dict[Cell, list[int]] = {}
        self.sketches: dict[Cell, Any] = {}  # Users, or a list of seconds
        self.sessions: dict[SessionKey, SessionRow] = {}


def fold(
    events: Iterable[Item],
    sessions: Mapping[SessionKey, Sequence[Item]],
    known: Mapping[SessionKey, SessionRow],
    positions: Positions,
    names: Collection[tuple[str, str]] = (),
) -> Folded:
    """`sessions` are these events by the session they are of, `known` those of them that the store has; `names` the
    (organisation, custom event name) that count under their own name.
    """
    folded = Folded()
    _fold_events(folded, events, names)
    cohorts: dict[Cell, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    steps: dict[Cell, list[int]] = defaultdict(lambda: [0, 0])
    seconds: dict[Cell, list[float]] = defaultdict(list)
    for key, of_session in sessions.items():
        before = known.get(key)
        row = advance(before, of_session, positions(key[0], key[1]))
        started, completed = row.started_at, row.completed_at
        if started is not None and completed is not None and not row.timed:
            took = (completed - started) / 1000
            if took >= 0:
                row = row._replace(timed=True)
                seconds[key[0], key[1], QUARTER, _quarter(started), sketches.SECONDS, ""].append(took)
        if row == before:
            continue  # as by the completion of a step that was seen
        if before is not None:
            _contribute(cohorts, steps, key, before, -1)
        _contribute(cohorts, steps, key, row, +1)
        folded.sessions[key] = row
    folded.cohorts = _some(cohorts)
    folded.cohort_steps = _some(steps)
    folded.sketches |= seconds
    return folded


def _quarter(at: int) -> int:
    return at // _QUARTER_MS * QUARTER


def _fold_events(folded: Folded, events: Iterable[Item], names: Collection[tuple[str, str]]) -> None:
    cells: dict[Cell, tuple[list[int], Users]] = {}
    custom: dict[Cell, list[int]] = defaultdict(lambda: [0])
    users: dict[Cell, Users] = defaultdict(dict)
    counter = _COUNTER
    for item in events:
        event = item.event
        if event is None:
            continue
        flow, kind, quarter = item.flow or NO_FLOW, event.type, item.at // _QUARTER_MS * QUARTER
        user = f"u:{event.user}" if event.user else f"a:{event.anon}" if event.anon else None
        cell = (item.organisation, flow, QUARTER, quarter, item.step or NO_STEP if flow else NO_STEP)
        found = cells.get(cell)
        if found is None:
            found = cells[cell] = ([0, 0, 0, 0], {})
        if kind != "custom":
            found[0][counter[kind]] += 1
        elif event.name:
            name = event.name if (item.organisation, event.name) in names else OTHER_NAMES
            custom[item.organisation, flow, QUARTER, quarter, name][0] += 1
            if user:
                users[item.organisation, flow, QUARTER, quarter, sketches.CUSTOM, name][user] = None
        if user and flow:
            found[1][user] = None
    for (organisation, flow, grain, quarter, step), (_, of_cell) in cells.items():
        if of_cell:
            users[organisation, flow, grain, quarter, sketches.USERS, NO_STEP].update(of_cell)
            if step:
                users[organisation, flow, grain, quarter, sketches.USERS, step] = of_cell
    folded.counts = _some({cell: count for cell, (count, _) in cells.items()})
    folded.custom_events = _some(custom)
    folded.sketches = dict(users)


def _some(cells: Mapping[Cell, list[int]]) -> dict[Cell, list[int]]:
    """Without what adds nothing."""
    return {cell: added for cell, added in cells.items() if any(added)}


def _contribute(
    cohorts: dict[Cell, list[int]], steps: dict[Cell, list[int]], key: SessionKey, row: SessionRow, sign: int
) -> None:
    """What a session is in the cohorts, added or taken away."""
    organisation, flow, _ = key
    cohorts[organisation, flow, QUARTER, _quarter(row.first_at)][0] += sign
    if row.started_at is None:
        return
    quarter = _quarter(row.started_at)
    completed = row.completed_at is not None
    cohort = cohorts[organisation, flow, QUARTER, quarter]
    cohort[1] += sign
    cohort[2] += sign * completed
    cohort[3] += sign * row.dismissed
    for step in row.steps:
        cell = steps[organisation, flow, QUARTER, quarter, step]
        cell[0] += sign
        cell[1] += sign * (step == row.furthest and not completed)


def merged(additions: Mapping[Cell, Iterable[Any]], stored: Mapping[Cell, bytes]) -> dict[Cell, bytes]:
    """The sketches that a batch's users, or seconds, change."""
    changed = {}
    for cell, values in additions.items():
        before = stored.get(cell)
        add = sketches.add_seconds if cell[KIND] == sketches.SECONDS else sketches.add_users
        after = add(before, values)
        if after != before:  # users who came before change nothing
            changed[cell] = after
    return changed
