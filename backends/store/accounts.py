"""The books that `zenstep audit` compares, as the store has them at one moment; and the edges' own part of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from backends.store import statements
from backends.store.engine import read_only
from backends.store.queries import is_open
from backends.store.rows import chunks, parameters
from schemas import tables as t

ENDED = ""  # stands for all edges that are not heard of any more; see backends/store/retention.py
PARKED = ("newer_version", "unknown_version")  # reasons of rows in `rejected` that hold a line of any number of events

Place = tuple[str, str, int, str]
"""Organisation, topic, partition (-1 for none yet) and outcome: the key of `accepted` but for the edge."""
Whose = tuple[str, str, int]
"""Organisation, topic and partition."""
Cells = dict[tuple[str, int], int]
"""Sums by organisation and grain."""


class Books(NamedTuple):
    """Everything that must agree, read at one moment."""

    offsets: dict[tuple[str, int], int]  # the next offset, by topic and partition
    ledger: dict[Whose, dict[str, int]]  # events by outcome
    rejected: dict[Whose, int]  # rows that are one event each
    pruned: dict[tuple[str, str, str, int], int]  # by table, organisation, topic, partition
    seen: dict[str, int]  # rows by organisation
    sessions: dict[str, int]  # rows by organisation
    counts: Cells  # events that are counted as one of the four kinds
    custom_events: Cells
    cohort_sessions: Cells
    cohort_starts: Cells
    cohort_steps: Cells


class Accounts:
    """Blocking. Raises SQLAlchemy's errors where the store is away."""

    def __init__(self, engine: sa.Engine) -> None:
        self._reading = read_only(engine)
        if engine.dialect.name == "postgresql":
            self._reading = self._reading.execution_options(isolation_level="REPEATABLE READ")

    def accepted(self, organisation: str | None = None) -> dict[Place, int]:
        """What edges were promised, summed over them."""
        a = t.accepted.c
        with self._reading.begin() as connection:
            return _sums(connection, a.events, organisation, a.organisation_id, a.topic, a.partition, a.outcome)

    def offsets(self) -> dict[tuple[str, int], int]:
        """The next offset of each topic and partition that was ever read."""
        with self._reading.begin() as connection:
            return _offsets(connection)

    def books(self, organisation: str | None = None) -> Books:
        """All of it in one transaction, whatever workers write meanwhile."""
        with self._reading.begin() as connection:
            if connection.dialect.name == "postgresql":
                # Before the first query, which is the moment: dropping a day of `seen` would show at once.
                connection.execute(sa.text("LOCK TABLE ONLY seen IN ACCESS SHARE MODE"))
            return _books(connection, organisation)


def _books(connection: sa.Connection, organisation: str | None) -> Books:
    ledger: dict[Whose, dict[str, int]] = {}
    c = t.ledger.c
    for (*whose, outcome), events in _sums(
        connection, c.events, organisation, c.organisation_id, c.topic, c.partition, c.outcome
    ).items():
        ledger.setdefault(tuple(whose), {})[outcome] = events
    r, p = t.rejected.c, t.pruned.c
    events_each = sa.case((r.reason.in_(PARKED), 0), else_=1)
    return Books(
        offsets=_offsets(connection),
        ledger=ledger,
        rejected=_sums(connection, events_each, organisation, r.organisation_id, r.topic, r.partition),
        pruned=_sums(connection, p.removed, organisation, p.table, p.organisation_id, p.topic, p.partition),
        seen=_rows(connection, t.seen, organisation),
        sessions=_rows(connection, t.sessions, organisation),
        counts=_cells(connection, t.counts, organisation, "views", "completions", "skips", "dismissals"),
        custom_events=_cells(connection, t.custom_events, organisation, "events"),
        cohort_sessions=_cells(connection, t.cohorts, organisation, "sessions"),
        cohort_starts=_cells(connection, t.cohorts, organisation, "starts"),
        cohort_steps=_cells(connection, t.counts, organisation, "sessions"),
    )


def _offsets(connection: sa.Connection) -> dict[tuple[str, int], int]:
    o = t.offsets.c
    rows = connection.execute(sa.select(o.topic, o.partition, o.next_offset))
    return {(row.topic, row.partition): row.next_offset for row in rows}


def _sums(
    connection: sa.Connection,
    value: sa.ColumnElement[int],
    organisation: str | None,
    *keys: sa.Column[Any],
    where: sa.ColumnElement[bool] | None = None,
) -> dict[Any, int]:
    """The sum of `value` by these columns, of which one is the organisation."""
    query = sa.select(*keys, sa.func.sum(value)).group_by(*keys)
    if where is not None:
        query = query.where(where)
    if organisation is not None:
        query = query.where(*(key == organisation for key in keys if key.name == "organisation_id"))
    return {tuple(row[:-1]): int(row[-1]) for row in connection.execute(query)}


def _rows(connection: sa.Connection, table: sa.Table, organisation: str | None) -> dict[str, int]:
    sums = _sums(connection, sa.literal(1), organisation, table.c.organisation_id)
    return {key[0]: rows for key, rows in sums.items()}


def _cells(connection: sa.Connection, table: sa.Table, organisation: str | None, *columns: str) -> Cells:
    """By quarters, and by days; what readers know of an open day are its quarters."""
    value = sum((table.c[name] for name in columns[1:]), table.c[columns[0]])
    c, unsummed = table.c, is_open(table, t.open_days)
    quarters = c.grain == t.QUARTER
    by_days = sa.or_(sa.and_(quarters, unsummed), sa.and_(c.grain == t.DAY, ~unsummed))
    found: dict[tuple[str, int], int] = {}
    for grain, where in ((t.QUARTER, quarters), (t.DAY, by_days)):
        for (whose,), events in _sums(connection, value, organisation, c.organisation_id, where=where).items():
            found[whose, grain] = events
    return found


_ACCEPTED = ("organisation_id", "edge", "topic", "partition", "outcome", "events", "at")


class EdgeSums:
    """An edge's own rows. Blocking; every call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reading = read_only(engine)

    def set(self, edge: str, sums: Mapping[Place, int], at: int) -> None:
        """Sets rows to these sums, in the order given. A smaller one than is there, from a write long ago that comes
        late, changes nothing."""
        rows = [
            (organisation, edge, topic, partition, outcome, events, at)
            for (organisation, topic, partition, outcome), events in sums.items()
        ]
        columns = statements.columns(t.accepted, _ACCEPTED)
        with self._engine.begin() as connection:
            dialect = connection.dialect.name
            statement = statements.replace_earlier(dialect, t.accepted, _ACCEPTED, ("events", "at"))
            for part in chunks(rows):
                connection.execute(statement, parameters(dialect, columns, part))

    def knows(self, edge: str) -> bool:
        """Whether any row is there under this edge's name."""
        query = sa.select(sa.exists().where(t.accepted.c.edge == edge))
        with self._reading.begin() as connection:
            return bool(connection.execute(query).scalar())
