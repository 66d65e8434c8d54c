"""Sums up the days that are over: their cells, of the quarters that hold every event of them.

Workers add to a day's cells only where the day is not open, so that what is summed up here once is right from then on.
"""

import sqlalchemy as sa

from backends.store import statements
from backends.store.counting import Transaction
from backends.store.engine import insert_of, read_only
from schemas import sketches
from schemas import tables as t


class Rollups:
    """Blocking; safe beside workers and beside others of its kind. Raises SQLAlchemy's errors."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reading = read_only(engine)

    def open(self, before: int) -> list[tuple[str, str, int]]:
        """Organisation, flow and bucket of the open days that began before (epoch seconds)."""
        query = sa.select(t.open_days).where(t.open_days.c.bucket < before)
        with self._reading.begin() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(query)]

    def close(self, organisation: str, flow: str, day: int) -> bool:
        """Sums the day up, in place of the cells that it has. False where somebody else has done so."""
        o = t.open_days.c
        with self._engine.begin() as connection:
            # No worker counts for the organisation meanwhile, and none that has was still to commit.
            Transaction(connection).lock_organisations([organisation])
            where = (o.organisation_id == organisation, o.flow_id == flow, o.bucket == day)
            if connection.execute(t.open_days.delete().where(*where)).rowcount == 0:
                return False
            for table in t.CELLS:
                if table is not t.sketches:
                    connection.execute(_sum(connection.dialect.name, table, organisation, flow, day))
            _merge(connection, organisation, flow, day)
            return True


def _quarters(table: sa.Table, organisation: str, flow: str, day: int) -> list[sa.ColumnElement[bool]]:
    c = table.c
    which = [c.organisation_id == organisation, c.flow_id == flow, c.grain == t.QUARTER]
    return [*which, c.bucket >= day, c.bucket < day + t.DAY]


def _sum(dialect: str, table: sa.Table, organisation: str, flow: str, day: int) -> sa.Insert:
    keys, counters = statements.keys(table), statements.counters(table)
    of_day = {"grain": sa.literal(t.DAY), "bucket": sa.literal(day, sa.BigInteger)}
    whose = [table.c[name] for name in keys if name not in of_day]
    picked = [of_day[name] if name in of_day else table.c[name] for name in keys]
    # PostgreSQL sums whole numbers into a decimal one.
    sums = [sa.cast(sa.func.sum(table.c[name]), sa.BigInteger) for name in counters]
    rows = sa.select(*picked, *sums).where(*_quarters(table, organisation, flow, day)).group_by(*whose)
    new = insert_of(dialect, table).from_select([*keys, *counters], rows)
    return new.on_conflict_do_update(index_elements=list(keys), set_={name: new.excluded[name] for name in counters})


def _merge(connection: sa.Connection, organisation: str, flow: str, day: int) -> None:
    """A subject's sketches at a time: each may have 16 KiB, and a day has 96 quarters."""
    c = t.sketches.c
    where = _quarters(t.sketches, organisation, flow, day)
    subjects = connection.execute(sa.select(c.kind, c.subject).where(*where).distinct().order_by(c.kind, c.subject))
    for kind, subject in subjects.all():
        found = sa.select(c.sketch).where(*where, c.kind == kind, c.subject == subject).order_by(c.bucket)
        merged = sketches.together(kind, connection.execute(found).scalars())
        key = {"organisation_id": organisation, "flow_id": flow, "grain": t.DAY, "bucket": day}
        new = insert_of(connection.dialect.name, t.sketches).values(**key, kind=kind, subject=subject, sketch=merged)
        names = list(statements.keys(t.sketches))
        connection.execute(new.on_conflict_do_update(index_elements=names, set_={"sketch": new.excluded.sketch}))
