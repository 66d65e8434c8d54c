"""What workers set aside: looked at, and marked where it was put into its topic again."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from backends.store.engine import read_only
from schemas import tables as t
from schemas.records import Place

_KEY = tuple(column.name for column in t.rejected.primary_key)


class Rejected(NamedTuple):
    """One row. Times are epoch ms; `body` is empty where it was not asked for, `size` is its bytes all the same."""

    organisation: str  # the nil UUID where the line did not say
    place: Place
    reason: str
    received_at: int
    replayed_at: int | None
    size: int
    body: bytes = b""

    @property
    def key(self) -> tuple[str | int, ...]:
        return self.organisation, *self.place


class Wanted(NamedTuple):
    """Which rows: any of these reasons, `refused` for all that begin with `refused:`; received in [since, until)."""

    reasons: Sequence[str] = ()
    organisation: str | None = None
    since: int | None = None
    until: int | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        r = t.rejected.c
        found: list[sa.ColumnElement[bool]] = []
        if self.reasons:
            exact = r.reason.in_(self.reasons)
            found.append(sa.or_(exact, *(r.reason.startswith(f"{name}:", autoescape=True) for name in self.reasons)))
        if self.organisation is not None:
            found.append(r.organisation_id == self.organisation)
        if self.since is not None:
            found.append(r.received_at >= self.since)
        if self.until is not None:
            found.append(r.received_at < self.until)
        return found


class Sum(NamedTuple):
    """The rows of one reason: how many, how many of them were replayed, and when the edges received them."""

    reason: str
    rows: int
    replayed: int
    first: int
    last: int


class RejectedRows:
    """Blocking; every call is one transaction. Raises SQLAlchemy's errors where the store is away."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reading = read_only(engine)

    def latest(self, wanted: Wanted, limit: int) -> list[Rejected]:
        """Those received last, without their bodies."""
        r = t.rejected.c
        query = _select().where(*wanted.conditions()).order_by(r.received_at.desc(), *t.rejected.primary_key)
        return self._rows(query.limit(limit))

    def sums(self, wanted: Wanted) -> list[Sum]:
        """By reason."""
        r = t.rejected.c
        times = sa.func.min(r.received_at), sa.func.max(r.received_at)
        query = sa.select(r.reason, sa.func.count(), sa.func.count(r.replayed_at), *times)
        with self._reading.begin() as connection:
            rows = connection.execute(query.where(*wanted.conditions()).group_by(r.reason).order_by(r.reason))
            return [Sum(*row) for row in rows]

    def at(self, place: Place) -> list[Rejected]:
        """With their bodies: what stood there; more than one where a topic of that name was there before."""
        r = t.rejected.c
        columns = (r.topic, r.partition, r.record_offset, r.line, r.event)
        where = [column == value for column, value in zip(columns, place, strict=True)]
        return self._rows(_select(r.body).where(*where).order_by(r.organisation_id))

    def ends(self, wanted: Wanted) -> dict[tuple[str, int], int]:
        """The last offset that has a row, by topic and partition."""
        r = t.rejected.c
        query = sa.select(r.topic, r.partition, sa.func.max(r.record_offset)).group_by(r.topic, r.partition)
        with self._reading.begin() as connection:
            rows = connection.execute(query.where(*wanted.conditions()))
            return {(topic, partition): offset for topic, partition, offset in rows}

    def page(
        self,
        wanted: Wanted,
        ends: Mapping[tuple[str, int], int],
        after: tuple[str | int, ...] | None,
        limit: int,
        again: bool = False,
    ) -> list[Rejected]:
        """The next rows, with their bodies, in the order of the primary key, none beyond `ends`.

        Rows that were replayed are left out but for `again`.
        """
        r = t.rejected.c
        query = _select(r.body).where(*wanted.conditions())
        query = query.where(
            sa.or_(
                *(
                    sa.and_(r.topic == topic, r.partition == partition, r.record_offset <= offset)
                    for (topic, partition), offset in ends.items()
                ),
                sa.false(),
            )
        )
        if not again:
            query = query.where(r.replayed_at.is_(None))
        if after is not None:
            query = query.where(sa.tuple_(*(r[name] for name in _KEY)) > sa.tuple_(*after))
        return self._rows(query.order_by(*t.rejected.primary_key).limit(limit))

    def mark_replayed(self, rows: Iterable[Rejected], at: int) -> None:
        """Says that these are in their topic again since `at` (epoch ms)."""
        keys = [row.key for row in rows]
        if keys:
            where = sa.tuple_(*(t.rejected.c[name] for name in _KEY)).in_(keys)
            with self._engine.begin() as connection:
                connection.execute(t.rejected.update().where(where).values(replayed_at=at))

    def _rows(self, query: "sa.Select[Any]") -> list[Rejected]:
        with self._reading.begin() as connection:
            return [Rejected(row[0], Place(*row[1:6]), *row[6:]) for row in connection.execute(query)]


def _select(*more: sa.Column[bytes]) -> "sa.Select[Any]":
    r = t.rejected.c
    size = sa.func.length(r.body)
    return sa.select(*t.rejected.primary_key, r.reason, r.received_at, r.replayed_at, size, *more)
