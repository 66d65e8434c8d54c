"""In what two sets of the written tables differ: rows, sums, and how many rows one has and the other has not.

Left out is what depends on where one batch ended and the next began: cells that are back at zero, and the times to
complete, which a start that turns out earlier does not rewrite. So is what a clock of the log or an operator said, and
the cells of a day that is open on either side, which nobody reads.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa

from backends.store.queries import is_open
from backends.store.rebuild import WRITTEN, Tables
from schemas import tables as t

_LEFT_OUT = {
    **{cells: set(t.SKETCHES) for cells in t.CELLS},  # of the same values they may differ in their bytes
    t.sessions: {"timed"},
    t.offsets: {"processed_through", "identity"},
    t.rejected: {"replayed_at"},
}


class Difference(NamedTuple):
    """One table. Pairs are (live, rebuilt); `only` counts rows that the other side has not, or has otherwise.

    `pruned` rows were removed from the live table by retention; a rebuild has them again.
    """

    table: str
    rows: tuple[int, int]
    only: tuple[int, int]
    pruned: int
    sums: dict[str, tuple[int, int]]

    @property
    def equal(self) -> bool:
        return self.only == (0, self.pruned)


def compare(connection: sa.Connection, live: Tables, rebuilt: Tables) -> list[Difference]:
    """Every written table but those of retention, and of `seen` the days that the live store has not dropped."""
    dropped = connection.execute(sa.select(sa.func.max(live[t.horizon].c.day))).scalar() or 0
    p = live[t.pruned].c
    query = sa.select(p.table, sa.func.sum(p.removed)).where(p.table != t.seen.name).group_by(p.table)
    pruned: dict[str, int] = {table: int(removed) for table, removed in connection.execute(query)}
    return [
        _Pair(connection, table, live, rebuilt, dropped).difference(pruned.get(str(table.name), 0))
        for table in WRITTEN
        if table not in (t.horizon, t.pruned, t.open_days)
    ]


class _Pair:
    def __init__(self, connection: sa.Connection, table: sa.Table, live: Tables, rebuilt: Tables, dropped: int) -> None:
        self._connection = connection
        self._table = table
        self._sides = (live[table], rebuilt[table])
        self._open_days = (live[t.open_days], rebuilt[t.open_days])
        self._dropped = dropped
        keys = {column.name for column in table.primary_key}
        self._counters = [c.name for c in table.columns if c.name not in keys and c.server_default is not None]
        self._users = [column.name for column in table.columns if column.name == "users"]
        self._compared = [c.name for c in table.columns if c.name not in _LEFT_OUT.get(table, set())]

    def difference(self, pruned: int) -> Difference:
        before, after = (self._measure(side) for side in self._sides)
        sums = {name: (before[name], after[name]) for name in self._counters}
        live, rebuilt = self._sides
        only = (self._only(live, rebuilt), self._only(rebuilt, live))
        return Difference(str(self._table.name), (before["rows"], after["rows"]), only, pruned, sums)

    def _measure(self, side: sa.Table) -> dict[str, int]:
        sums = [sa.func.coalesce(sa.func.sum(side.c[name]), 0).label(name) for name in self._counters]
        query = sa.select(sa.func.count().label("rows"), *sums).select_from(side).where(*self._kept(side))
        return {name: int(value) for name, value in self._connection.execute(query).mappings().one().items()}

    def _only(self, here: sa.Table, there: sa.Table) -> int:
        mine, theirs = (
            sa.select(
                *(_value(side.c[name]) for name in self._compared), *(side.c[name].is_(None) for name in self._users)
            ).where(*self._kept(side))
            for side in (here, there)
        )
        rows = sa.select(sa.func.count()).select_from(mine.except_(theirs).subquery())
        return int(self._connection.execute(rows).scalar() or 0)

    def _kept(self, side: sa.Table) -> list[sa.ColumnElement[bool]]:
        if self._table is t.seen:
            return [side.c.day >= self._dropped]
        kept: list[sa.ColumnElement[bool]] = []
        if self._table in t.CELLS:
            kept = [sa.or_(side.c.grain != t.DAY, ~is_open(side, days)) for days in self._open_days]
        if self._counters:
            used = [side.c[name] != 0 for name in self._counters]
            used += [side.c[name].is_not(None) for name in self._users]
            kept.append(sa.or_(*used))
        return kept


def _value(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """PostgreSQL does not compare JSON; as it is written it does."""
    return sa.cast(column, sa.Text).label(column.name) if isinstance(column.type, sa.JSON) else column
