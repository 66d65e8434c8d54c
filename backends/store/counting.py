"""Opens a worker's transactions, and keeps where the partitions stand."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import sqlalchemy as sa

from backends.store import statements
from backends.store.engine import upsert
from backends.store.transaction import Hope, Move, OffsetMoved, SessionRow, Transaction
from schemas import tables as t

__all__ = ["Counting", "Move", "OffsetMoved", "SessionRow", "Transaction"]

TP = TypeVar("TP", bound=tuple[str, int])
"""A topic and a partition, by whatever named tuple the caller has for it."""


class Counting:
    """Opens the worker's transactions and keeps the partitions' offsets."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._hope = Hope()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commits at the end, rolls back on any exception. Raises SQLAlchemy's errors where the store is away."""
        with self._engine.begin() as connection:
            yield Transaction(connection, self._hope)

    def offsets(self, start: Mapping[TP, int]) -> dict[tuple[str, int], int]:
        """The next offset of each partition. One never read before is entered with the offset given for it."""
        o = t.offsets
        with self._engine.begin() as connection:
            for (topic, partition), offset in sorted(start.items()):
                row = {"topic": topic, "partition": partition, "next_offset": offset, "processed_through": 0}
                connection.execute(upsert(connection, o).values(row).on_conflict_do_nothing())
            where = sa.tuple_(o.c.topic, o.c.partition).in_(list(start))
            rows = connection.execute(sa.select(o.c.topic, o.c.partition, o.c.next_offset).where(where))
            return {(row.topic, row.partition): row.next_offset for row in rows}

    def mark_caught_up(self, positions: Mapping[TP, int], through: int) -> None:
        """Says that these partitions held nothing beyond these offsets at the time `through` (epoch ms)."""
        # One after another, as a batch moves them; not one of them is waited for by itself.
        rows = [
            {"of_topic": topic, "of_partition": partition, "expected": offset, "through": through}
            for (topic, partition), offset in sorted(positions.items())
        ]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(statements.mark_caught_up(), rows)

    def ledger(self, organisation: str | None = None, topic: str | None = None) -> dict[str, int]:
        """Events by outcome, of one organisation or of all, of one topic or of all."""
        c = t.ledger.c
        query = sa.select(c.outcome, sa.func.sum(c.events)).group_by(c.outcome).order_by(c.outcome)
        if organisation is not None:
            query = query.where(c.organisation_id == organisation)
        if topic is not None:
            query = query.where(c.topic == topic)
        with self._engine.begin() as connection:
            return {outcome: int(events) for outcome, events in connection.execute(query)}
