"""What readers ask. Every answer is a sum over cells; no query scans sessions."""

from collections.abc import Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from backends.store.engine import read_only
from schemas import tables as t
from schemas.ids import partition_of


class Span(Protocol):
    """Cells of one grain with buckets in [start, end), epoch seconds."""

    @property
    def grain(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


def is_open(cells: sa.Table, open_days: sa.Table) -> sa.ColumnElement[bool]:
    """Whether a cell, of a quarter or of a day, is of a day that is open."""
    c, o = cells.c, open_days.c
    day = c.bucket - c.bucket % t.DAY
    return sa.exists().where(o.organisation_id == c.organisation_id, o.flow_id == c.flow_id, o.bucket == day)


class Queries:
    """Blocking; one transaction a call. Raises SQLAlchemy's errors where the store is away."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = read_only(engine)

    def cells(
        self, table: sa.Table, organisation: str, flows: Sequence[str], spans: Sequence[Span]
    ) -> list[sa.RowMapping]:
        """The rows of a table of cells, of these flows and spans."""
        c = table.c
        stretches = [sa.and_(c.grain == s.grain, c.bucket >= s.start, c.bucket < s.end) for s in spans]
        query = sa.select(table).where(c.organisation_id == organisation, c.flow_id.in_(flows), sa.or_(*stretches))
        with self._engine.begin() as connection:
            return list(connection.execute(query).mappings())

    def open_days(self, organisation: str, flows: Sequence[str], start: int, end: int) -> set[int]:
        """The UTC days that begin in [start, end), both epoch seconds, of which only the quarters are whole.

        Also a day that has been closed since may be read by its quarters, and one that was opened since by its day:
        what came after it was asked is missing then.
        """
        o = t.open_days.c
        where = (o.organisation_id == organisation, o.flow_id.in_(flows), o.bucket >= start, o.bucket < end)
        with self._engine.begin() as connection:
            return set(connection.execute(sa.select(o.bucket).where(*where)).scalars())

    def processed_through(self, organisation: str, topic: str) -> int | None:
        """Epoch ms up to which every accepted event of the organisation is counted; None where that is not known yet.

        Its records go to one partition of the topic; where the topic has grown, older ones may be in another.
        """
        o, ledger = t.offsets.c, t.ledger.c
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(o.partition, o.processed_through).where(o.topic == topic)).all()
            through: dict[int, Any] = {row[0]: row[1] for row in rows}
            if not through:
                return None
            where = (ledger.organisation_id == organisation, ledger.topic == topic)
            mine = set(connection.execute(sa.select(ledger.partition).where(*where).distinct()).scalars())
        mine.add(partition_of(organisation, max(through) + 1))
        return min(int(through.get(partition, 0)) for partition in mine) or None
