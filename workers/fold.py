"""The fold: new events and what is known of their sessions in, additions to cells out. Pure, no I/O.

Counters are sums, so the order of events does not matter to them. A session is moved between cells by taking what it
contributed before away and adding what it contributes now. All is folded by the quarter of an hour; workers/days.py
adds the days.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from backends.store.counting import SessionRow
from schemas import tables as t
from schemas.sketches import kind_of
from schemas.tables import NO_FLOW, NO_STEP, OTHER_NAMES, QUARTER
from workers.items import Item
from workers.sessions import SessionKey, advance

Cell = tuple[Any, ...]
Users = dict[str, None]
"""A set that keeps the order of arrival, so that the same events make the same sketch."""

_QUARTER_MS = QUARTER * 1000
_COUNTER = {"view": 0, "complete": 1, "skip": 2, "dismiss": 3}
_SESSIONS, _DROPPED = 4, 5


class Positions(Protocol):
    def __call__(self, organisation: str, flow: str) -> Mapping[str, int]: ...


class Added(NamedTuple):
    """What a batch adds to the cells of one table: to counters, and values to sketches."""

    counters: dict[Cell, list[int]]
    values: dict[Cell, Any]  # Users, or a list of seconds


class Folded(NamedTuple):
    """What a batch adds to each table of cells, and what its sessions are now."""

    cells: dict[sa.Table, Added]
    sessions: dict[SessionKey, SessionRow]


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
    counts: dict[Cell, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0, 0])
    custom_events, users, custom_users = _fold_events(counts, events, names)
    cohorts: dict[Cell, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    seconds: dict[Cell, list[float]] = defaultdict(list)
    changed: dict[SessionKey, SessionRow] = {}
    for key, of_session in sessions.items():
        before = known.get(key)
        row = advance(before, of_session, positions(key[0], key[1]))
        started, completed = row.started_at, row.completed_at
        if started is not None and completed is not None and not row.timed:
            took = (completed - started) / 1000
            if took >= 0:
                row = row._replace(timed=True)
                seconds[key[0], key[1], QUARTER, _quarter(started)].append(took)
        if row == before:
            continue  # as by the completion of a step that was seen
        if before is not None:
            _contribute(cohorts, counts, key, before, -1)
        _contribute(cohorts, counts, key, row, +1)
        changed[key] = row
    cells = {
        t.counts: Added(_some(counts), users),
        t.custom_events: Added(custom_events, custom_users),
        t.cohorts: Added(_some(cohorts), seconds),
    }
    return Folded(cells, changed)


def _quarter(at: int) -> int:
    return at // _QUARTER_MS * QUARTER


def _fold_events(
    counts: dict[Cell, list[int]], events: Iterable[Item], names: Collection[tuple[str, str]]
) -> tuple[dict[Cell, list[int]], dict[Cell, Users], dict[Cell, Users]]:
    """Returns the custom events, the users of the cells of `counts`, and those of custom events."""
    cells: dict[Cell, tuple[list[int], Users]] = {}
    custom: dict[Cell, list[int]] = defaultdict(lambda: [0])
    custom_users: dict[Cell, Users] = defaultdict(dict)
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
            found = cells[cell] = (counts[cell], {})
        if kind != "custom":
            found[0][counter[kind]] += 1
        elif event.name:
            name = event.name if (item.organisation, event.name) in names else OTHER_NAMES
            named = (item.organisation, flow, QUARTER, quarter, name)
            custom[named][0] += 1
            if user:
                custom_users[named][user] = None
        if user and flow:
            found[1][user] = None
    users: dict[Cell, Users] = defaultdict(dict)
    for cell, (_, of_cell) in cells.items():
        if of_cell:
            users[*cell[:4], NO_STEP].update(of_cell)
            if cell[4] != NO_STEP:
                users[cell] = of_cell
    return custom, users, custom_users


def _some(cells: Mapping[Cell, list[int]]) -> dict[Cell, list[int]]:
    """Without what adds nothing."""
    return {cell: added for cell, added in cells.items() if any(added)}


def _contribute(
    cohorts: dict[Cell, list[int]], counts: dict[Cell, list[int]], key: SessionKey, row: SessionRow, sign: int
) -> None:
    """What a session is in its cohort and in that of each step, added or taken away."""
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
        cell = counts[organisation, flow, QUARTER, quarter, step]
        cell[_SESSIONS] += sign
        if step == row.furthest and not completed:
            cell[_DROPPED] += sign


def merged(table: sa.Table, additions: Mapping[Cell, Iterable[Any]], stored: Mapping[Cell, bytes]) -> dict[Cell, bytes]:
    """The sketches of a table of cells that a batch's values change."""
    changed = {}
    add = kind_of(table).add
    for cell, values in additions.items():
        before = stored.get(cell)
        after = add(before, values)
        if after != before:  # users who came before change nothing
            changed[cell] = after
    return changed
