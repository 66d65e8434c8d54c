"""Removes what the store keeps of one person, and remembers to leave them out of what is read again."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from backends.store.engine import read_only, upsert
from schemas import tables as t
from schemas.ids import NIL

PAGE = 200

Change = Callable[[bytes, int], bytes]
"""What a body becomes that was received then (epoch ms)."""


class Forgetting:
    """In one organisation. Blocking. Raises SQLAlchemy's errors where the store is away."""

    def __init__(self, engine: sa.Engine, organisation: str) -> None:
        self._engine = engine
        self._reading = read_only(engine)
        self._organisation = organisation

    def enter(self, digests: Sequence[str], at: int) -> None:
        """From here on workers leave these persons out of what was received until `at`.

        A worker holds the organisation while it writes: so what it writes without knowing this is there after it.
        """
        f = t.forgotten
        with self._engine.begin() as connection:
            o = t.organisations.c.organisation_id
            connection.execute(sa.select(o).where(o == self._organisation).with_for_update())
            insert = upsert(connection, f)
            later = insert.on_conflict_do_update(
                index_elements=["organisation_id", "user_digest"],
                set_={"at": sa.case((insert.excluded.at > f.c.at, insert.excluded.at), else_=f.c.at)},
            )
            rows = [{"organisation_id": self._organisation, "user_digest": one, "at": at} for one in digests]
            connection.execute(later, rows)

    def progress(self, persons: Sequence[str]) -> int:
        """How many rows of checklists are theirs, by schemas.small.person_digest."""
        with self._reading.begin() as connection:
            query = sa.select(sa.func.count()).select_from(t.checklist_progress).where(*self._theirs(persons))
            return int(connection.execute(query).scalar() or 0)

    def remove_progress(self, persons: Sequence[str]) -> int:
        """How many there were."""
        with self._engine.begin() as connection:
            return connection.execute(t.checklist_progress.delete().where(*self._theirs(persons))).rowcount

    def rewrite_rejected(self, needles: Sequence[bytes], change: Change, dry_run: bool) -> int:
        """Gives each body that holds one of the needles what `change` says; how many that changed.

        Lines that do not say whose they are count as this organisation's.
        """
        changed = 0
        r = t.rejected
        for page in self._pages(needles):
            rows = [(row, change(row.body, row.received_at)) for row in page]
            rows = [(row, body) for row, body in rows if body != row.body]
            changed += len(rows)
            if rows and not dry_run:
                with self._engine.begin() as connection:
                    for row, body in rows:
                        key = [column == row._mapping[column.name] for column in r.primary_key]
                        connection.execute(r.update().where(*key).values(body=body))
        return changed

    def _pages(self, needles: Sequence[bytes]) -> Iterator[Sequence[Any]]:
        r = t.rejected
        key = sa.tuple_(*r.primary_key)
        query = sa.select(*r.primary_key, r.c.received_at, r.c.body).order_by(*r.primary_key).limit(PAGE)
        query = query.where(r.c.organisation_id.in_([self._organisation, NIL]), self._holds(needles))
        after: tuple[object, ...] | None = None
        while True:
            with self._reading.begin() as connection:
                page = connection.execute(query if after is None else query.where(key > sa.tuple_(*after))).all()
            if not page:
                return
            yield page
            after = tuple(page[-1])[: len(r.primary_key)]

    def _holds(self, needles: Sequence[bytes]) -> sa.ColumnElement[bool]:
        body = t.rejected.c.body
        position = sa.func.instr if self._engine.dialect.name == "sqlite" else sa.func.pg_catalog.position
        found = [position(body, sa.literal(needle, sa.LargeBinary)) > 0 for needle in needles]
        return sa.or_(*found)

    def _theirs(self, persons: Sequence[str]) -> list[sa.ColumnElement[bool]]:
        p = t.checklist_progress.c
        return [p.organisation_id == self._organisation, p.person.in_(persons)]
