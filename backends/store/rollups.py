"""Sums up the days that are over: their cells, of the quarters that hold every event of them.

Workers add to a day's cells only where the day is not open, so that what is summed up here once is right from then on.
"""

import sqlalchemy as sa

from backends.store import statements
from backends.store.counting import Transaction
from backends.store.engine import insert_of, read_only
from schemas import tables as t
from schemas.sketches import kind_of

_OF_DAY = ("grain", "bucket")


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
                connection.execute(_sum(connection.dialect.name, table, organisation, flow, day))
                _merge(connection, table, organisation, flow, day)
            return True


def _quarters(table: sa.Table, organisation: str, flow: str, day: int) -> list[sa.ColumnElement[bool]]:
    c = table.c
    which = [c.organisation_id == organisation, c.flow_id == flow, c.grain == t.QUARTER]
    return [*which, c.bucket >= day, c.bucket < day + t.DAY]


def _sum(dialect: str, table: sa.Table, organisation: str, flow: str, day: int) -> sa.Insert:
    keys, counters = statements.keys(table), statements.counters(table)
    of_day = dict(zip(_OF_DAY, (sa.literal(t.DAY), sa.literal(day, sa.BigInteger)), strict=True))
    whose = [table.c[name] for name in keys if name not in of_day]
    picked = [of_day.get(name, table.c[name]) for name in keys]
    # PostgreSQL sums whole numbers into a decimal one.
    sums = [sa.cast(sa.func.sum(table.c[name]), sa.BigInteger) for name in counters]
    rows = sa.select(*picked, *sums).where(*_quarters(table, organisation, flow, day)).group_by(*whose)
    new = insert_of(dialect, table).from_select([*keys, *counters], rows)
    return new.on_conflict_do_update(index_elements=list(keys), set_={name: new.excluded[name] for name in counters})


def _merge(connection: sa.Connection, table: sa.Table, organisation: str, flow: str, day: int) -> None:
    """Into the day's cells, which are there. One at a time: each sketch may have 16 KiB, and a day has 96 quarters."""
    (name,) = t.sketch_of(table)
    c, together = table.c, kind_of(table).together
    quarters = [*_quarters(table, organisation, flow, day), c[name].is_not(None)]
    others = [c[key] for key in statements.keys(table) if key not in _OF_DAY]
    for which in connection.execute(sa.select(*others).where(*quarters).distinct().order_by(*others)).all():
        same = [column == value for column, value in zip(others, which, strict=True)]
        found = sa.select(c[name]).where(*quarters, *same).order_by(c.bucket)
        merged = together(connection.execute(found).scalars())
        of_day = (c.grain == t.DAY, c.bucket == day, *same)
        connection.execute(table.update().where(*of_day).values({name: merged}))
