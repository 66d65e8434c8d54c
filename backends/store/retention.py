"""Drops what nothing needs any more, and notes in the same transaction how much, so that an audit still adds up.

Safe while workers count. Each method may be repeated, and broken off at any time.
"""

import re
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import sqlalchemy as sa

from backends.store.accounts import ENDED, PARKED
from backends.store.counting import Transaction
from backends.store.engine import read_only, upsert
from schemas import tables as t

R = TypeVar("R")

# Beyond a batch's time, so that workers who are at it come to their end; those who come next wait behind it.
LOCK_MS = 5_000
TRIES = 12
PAUSE_SECONDS = (0.2, 5.0)  # between tries workers go on
_CONFLICTS = {"40001", "40P01", "55P03"}  # a serialisation failure, a deadlock, a lock not had in time

_BOUNDS = re.compile(r"FROM \('?(-?\d+)'?\) TO \('?(-?\d+)'?\)")


class Busy(Exception):
    """Others held the tables all the while; trying again later may succeed."""


class Retention:
    """Blocking. Raises Busy, and SQLAlchemy's errors where the store is away."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._postgres = engine.dialect.name == "postgresql"
        self._frozen = engine.execution_options(isolation_level="REPEATABLE READ") if self._postgres else engine

    def counted_through(self, topics: Iterable[str]) -> int | None:
        """Epoch ms before which the log has nothing that is still to be counted; None where nothing was ever read."""
        o = t.offsets.c
        query = sa.select(sa.func.min(o.processed_through)).where(o.topic.in_(list(topics)))
        with read_only(self._engine).begin() as connection:
            through: int | None = connection.execute(query).scalar()
        return through

    def drop_days(self, before: int) -> int:
        """The ids of days before this one (days since 1970); such events are then too old. Returns how many."""
        self._transact(self._raise_horizon, before)
        return sum(self._transact(self._drop_day, day) for day in self._days(before))

    def drop_rejected(self, before: int) -> int:
        """What was set aside of requests received before (epoch ms). Returns how many rows."""
        r = t.rejected.c
        old = r.received_at < before
        keys = (r.organisation_id, r.topic, r.partition)
        events = sa.func.sum(sa.case((r.reason.in_(PARKED), 0), else_=1))

        def drop(connection: sa.Connection) -> int:
            rows = connection.execute(sa.select(*keys, events).where(old).group_by(*keys)).all()
            dropped = connection.execute(t.rejected.delete().where(old)).rowcount
            _note(connection, {(o, "rejected", topic, partition): int(n) for o, topic, partition, n in rows})
            return dropped

        return self._transact(drop, frozen=True)

    def drop_sessions(self, before: int) -> int:
        """Sessions last heard of before (epoch ms); what they added to the cells stays. Returns how many."""
        s = t.sessions.c
        old = sa.and_(
            s.first_at < before, *(sa.or_(at.is_(None), at < before) for at in (s.started_at, s.completed_at))
        )

        def drop(connection: sa.Connection, organisation: str) -> int:
            # A worker that has read a session would put it back.
            Transaction(connection).lock_organisations([organisation])
            dropped = connection.execute(t.sessions.delete().where(s.organisation_id == organisation, old)).rowcount
            _note(connection, {(organisation, "sessions", "", -1): dropped})
            return dropped

        with read_only(self._engine).begin() as connection:
            theirs = connection.execute(sa.select(s.organisation_id).where(old).distinct()).scalars().all()
        return sum(self._transact(drop, organisation) for organisation in sorted(theirs))

    def fold_edges(self, before: int) -> int:
        """Edges not heard of since (epoch ms): their sums become one sum. Returns how many edges."""
        a = t.accepted.c

        def fold(connection: sa.Connection) -> int:
            if self._postgres:  # an edge that wakes up now must find its rows as they were, or gone
                connection.execute(sa.text("LOCK TABLE accepted IN SHARE ROW EXCLUSIVE MODE"))
            silent = sa.select(a.edge).where(a.edge != ENDED).group_by(a.edge).having(sa.func.max(a.at) < before)
            edges = connection.execute(silent).scalars().all()
            theirs = a.edge.in_(edges)
            keys = (a.organisation_id, a.topic, a.partition, a.outcome)
            sums = sa.select(*keys, sa.func.sum(a.events), sa.func.max(a.at)).where(theirs).group_by(*keys)
            for *place, events, at in connection.execute(sums).all():
                row = dict(zip((key.name for key in keys), place, strict=True))
                insert = upsert(connection, t.accepted).values(**row, edge=ENDED, events=int(events), at=at)
                more = {"events": a.events + insert.excluded.events, "at": insert.excluded.at}
                connection.execute(insert.on_conflict_do_update(index_elements=list(t.accepted.primary_key), set_=more))
            connection.execute(t.accepted.delete().where(theirs))
            return len(edges)

        return self._transact(fold)

    def _raise_horizon(self, connection: sa.Connection, day: int) -> None:
        """A worker reads the horizon before it looks at ids. With this lock none is between the two."""
        if self._postgres:
            connection.execute(sa.text("LOCK TABLE horizon IN ACCESS EXCLUSIVE MODE"))
        insert = upsert(connection, t.horizon).values(singleton=1, day=day)
        later = t.horizon.c.day < insert.excluded.day
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=[t.horizon.c.singleton], set_={"day": insert.excluded.day}, where=later
            )
        )

    def _days(self, before: int) -> list[int]:
        with read_only(self._engine).begin() as connection:
            if self._postgres:
                return sorted(day for day in _partitions(connection) if day < before)
            days = sa.select(t.seen.c.day).where(t.seen.c.day < before).distinct()
            return sorted(connection.execute(days).scalars())

    def _drop_day(self, connection: sa.Connection, day: int) -> int:
        """Behind the horizon nothing is entered any more, so what is counted here is what is dropped."""
        s = t.seen.c
        partition = _partitions(connection).get(day) if self._postgres else None
        if self._postgres and partition is None:
            return 0  # another run was faster
        query = sa.select(s.organisation_id, sa.func.count()).where(s.day == day).group_by(s.organisation_id)
        rows = {organisation: int(n) for organisation, n in connection.execute(query)}
        _note(connection, {(organisation, "seen", "", -1): n for organisation, n in rows.items()})
        if partition is not None:
            connection.exec_driver_sql(f"DROP TABLE {partition}")
        else:
            connection.execute(t.seen.delete().where(s.day == day))
        return sum(rows.values())

    def _transact(self, work: Callable[..., R], *arguments: object, frozen: bool = False) -> R:
        """`frozen`: every statement sees the rows as the first one did; who changes them meanwhile is a conflict."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(PAUSE_SECONDS[1], PAUSE_SECONDS[0] * 2**attempt))
            try:
                with (self._frozen if frozen else self._engine).begin() as connection:
                    if self._postgres:
                        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MS}")
                    return work(connection, *arguments)
            except sa.exc.DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _CONFLICTS:
                    raise
        raise Busy("others hold the store's tables")


def _note(connection: sa.Connection, removed: dict[tuple[str, str, str, int], int]) -> None:
    added = {key: [rows] for key, rows in sorted(removed.items()) if rows}
    Transaction(connection).add(t.pruned, added)


def _partitions(connection: sa.Connection) -> dict[int, str]:
    """The tables of PostgreSQL that hold a day of `seen` each, by day."""
    query = (
        "SELECT c.oid::regclass::text, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i "
        "JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('seen')"
    )
    found = {}
    for name, bounds in connection.execute(sa.text(query)):
        match = _BOUNDS.search(bounds)
        if match is not None and int(match[2]) == int(match[1]) + 1:
            found[int(match[1])] = str(name)
    return found
