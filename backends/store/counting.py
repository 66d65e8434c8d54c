"""The worker's transaction: everything a batch writes, written together or not at all.

The first statements lock: the offsets of the partitions by moving them, then the rows of the organisations, each in
key order. After that nothing another worker does can come between what is read here and what is written, and no two
workers can wait for each other. Organisations rarely share a lock: normally one worker has all of a tenant.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from backends.store.engine import upsert
from schemas import tables as t

K = TypeVar("K")
TP = TypeVar("TP", bound=tuple[str, int])
"""A topic and a partition, by whatever named tuple the caller has for it."""

# How many keys one statement names at most; SQLite's bound variables are 32,766.
_CHUNK = 2000


class OffsetMoved(Exception):
    """Another worker has moved this partition's offset: this one is a zombie there and must write nothing."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(f"{topic}[{partition}]")
        self.topic = topic
        self.partition = partition


class Move(NamedTuple):
    """A partition's offset from where this worker believes it is to where the batch ends."""

    topic: str
    partition: int
    expected: int
    following: int
    processed_through: int  # epoch ms


class SessionRow(NamedTuple):
    """What the store knows of one session in one flow. Times are epoch ms."""

    first_at: int
    started_at: int | None = None
    completed_at: int | None = None
    dismissed: bool = False
    steps: tuple[str, ...] = ()  # seen, in the order of arrival
    furthest: str | None = None
    timed: bool = False


class Counting:
    """Opens the worker's transactions and keeps the partitions' offsets."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        """Commits at the end, rolls back on any exception. Raises SQLAlchemy's errors where the store is away."""
        with self._engine.begin() as connection:
            yield Transaction(connection)

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
        o = t.offsets.c
        with self._engine.begin() as connection:
            for (topic, partition), offset in sorted(positions.items()):
                where = (o.topic == topic, o.partition == partition, o.next_offset == offset)
                behind = o.processed_through < through
                connection.execute(t.offsets.update().where(*where, behind).values(processed_through=through))

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


class Transaction:
    """One batch's writes, on an open connection."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    @contextmanager
    def part(self) -> Iterator[None]:
        """What is written inside is undone on any exception; the rest of the transaction stays."""
        with self._connection.begin_nested():
            yield

    def move_offsets(self, moves: Iterable[Move]) -> None:
        """Compare and set. Raises OffsetMoved."""
        o = t.offsets.c
        for move in sorted(moves):
            where = (o.topic == move.topic, o.partition == move.partition, o.next_offset == move.expected)
            later = sa.case(
                (o.processed_through < move.processed_through, move.processed_through),
                else_=o.processed_through,
            )
            update = t.offsets.update().where(*where).values(next_offset=move.following, processed_through=later)
            if self._connection.execute(update).rowcount != 1:
                raise OffsetMoved(move.topic, move.partition)

    def lock_organisations(self, organisations: Iterable[str]) -> set[str]:
        """Holds these organisations to the end of the transaction; returns those that exist."""
        c = t.organisations.c.organisation_id
        found: set[str] = set()
        for part in _chunks(sorted(set(organisations))):
            query = sa.select(c).where(c.in_(part)).order_by(c).with_for_update(key_share=True)
            found.update(self._connection.execute(query).scalars())
        return found

    def forgotten(self, organisations: Iterable[str], persons: Iterable[str] = ()) -> list[tuple[str, str, int]]:
        """Who is to be forgotten in these organisations, or these in any: (organisation, digest, epoch ms)."""
        f = t.forgotten.c
        where = [f.organisation_id.in_(part) for part in _chunks(sorted(set(organisations)))]
        where += [f.user_digest.in_(part) for part in _chunks(sorted(set(persons)))]
        query = sa.select(f.organisation_id, f.user_digest, f.at)
        return [(row[0], row[1], row[2]) for part in where for row in self._connection.execute(query.where(part)).all()]

    def horizon(self) -> int:
        """The first day whose ids are still kept (days since 1970)."""
        return self._connection.execute(sa.select(sa.func.max(t.horizon.c.day))).scalar() or 0

    def seen_on_any_day(self, ids: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these (organisation, event id) pairs that are in, whatever their day."""
        s = t.seen.c
        found: set[tuple[str, str]] = set()
        for part in _chunks(list(ids)):
            where = sa.tuple_(s.organisation_id, s.event_id).in_(part)
            rows = self._connection.execute(sa.select(s.organisation_id, s.event_id).where(where))
            found.update((row[0], row[1]) for row in rows)
        return found

    def add_seen(self, ids: Iterable[tuple[str, int, str]]) -> set[tuple[str, str]]:
        """Enters (organisation, day, event id); returns the (organisation, event id) pairs that were new."""
        s = t.seen.c
        new: set[tuple[str, str]] = set()
        for part in _chunks(list(ids)):
            rows = [{"organisation_id": o, "day": d, "event_id": e} for o, d, e in part]
            insert = upsert(self._connection, t.seen).values(rows).on_conflict_do_nothing()
            returned = self._connection.execute(insert.returning(s.organisation_id, s.event_id))
            new.update((row[0], row[1]) for row in returned)
        return new

    def admit_names(self, wanted: Mapping[str, set[str]], limit: int) -> set[tuple[str, str]]:
        """Those (organisation, custom event name) that count under their own name: the first `limit` of each."""
        c = t.custom_names.c
        pairs = [(organisation, name) for organisation, names in wanted.items() for name in sorted(names)]
        admitted: set[tuple[str, str]] = set()
        for part in _chunks(pairs):
            rows = self._connection.execute(
                sa.select(c.organisation_id, c.name).where(sa.tuple_(c.organisation_id, c.name).in_(part))
            )
            admitted.update((row[0], row[1]) for row in rows)
        fresh: dict[str, list[str]] = {}
        for organisation, name in pairs:
            if (organisation, name) not in admitted:
                fresh.setdefault(organisation, []).append(name)
        for organisation, names in fresh.items():
            count = sa.select(sa.func.count()).where(c.organisation_id == organisation)
            room = max(0, limit - (self._connection.execute(count).scalar() or 0))
            rows_in = [{"organisation_id": organisation, "name": name} for name in names[:room]]
            self._many(upsert(self._connection, t.custom_names).on_conflict_do_nothing(), rows_in)
            admitted.update((organisation, name) for name in names[:room])
        return admitted

    def sessions(self, keys: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], SessionRow]:
        """Those of these (organisation, flow, session) that are known."""
        s = t.sessions.c
        found: dict[tuple[str, str, str], SessionRow] = {}
        for part in _chunks(list(keys)):
            where = sa.tuple_(s.organisation_id, s.flow_id, s.session).in_(part)
            for row in self._connection.execute(sa.select(t.sessions).where(where)):
                fields = row._asdict() | {"steps": tuple(row.steps)}
                found[row[0], row[1], row[2]] = SessionRow(**{name: fields[name] for name in SessionRow._fields})
        return found

    def save_sessions(self, sessions: Mapping[tuple[str, str, str], SessionRow]) -> None:
        """Enters or replaces."""
        fields = SessionRow._fields
        rows = [
            {"organisation_id": o, "flow_id": f, "session": s} | row._asdict() | {"steps": list(row.steps)}
            for (o, f, s), row in sessions.items()
        ]
        insert = upsert(self._connection, t.sessions)
        self._many(
            insert.on_conflict_do_update(
                index_elements=["organisation_id", "flow_id", "session"],
                set_={name: insert.excluded[name] for name in fields},
            ),
            rows,
        )

    def add(self, table: sa.Table, deltas: Mapping[tuple[Any, ...], Sequence[int]]) -> None:
        """Adds to the counters of a table of cells. A key is the table's primary key, in its order."""
        keys = [column.name for column in table.primary_key]
        counters = [column.name for column in table.c if column.name not in keys]
        rows = [
            dict(zip(keys, key, strict=True)) | dict(zip(counters, delta, strict=True)) for key, delta in deltas.items()
        ]
        insert = upsert(self._connection, table)
        self._many(
            insert.on_conflict_do_update(
                index_elements=keys, set_={name: table.c[name] + insert.excluded[name] for name in counters}
            ),
            rows,
        )

    def merge_sketches(
        self, values: Mapping[tuple[Any, ...], K], merge: Callable[[str, bytes | None, K], bytes]
    ) -> None:
        """Puts values into sketches. A key is the table's primary key; `merge` gets kind, stored and values."""
        table, c = t.sketches, t.sketches.c
        keys = [column.name for column in table.primary_key]
        stored: dict[tuple[Any, ...], bytes] = {}
        for part in _chunks(list(values)):
            where = sa.tuple_(*(c[name] for name in keys)).in_(part)
            for row in self._connection.execute(sa.select(table).where(where)):
                stored[tuple(row[:-1])] = row[-1]
        kind = keys.index("kind")
        rows = []
        for key, added in values.items():
            before = stored.get(key)
            merged = merge(key[kind], before, added)
            if merged != before:  # users who came before change nothing
                rows.append(dict(zip(keys, key, strict=True)) | {"sketch": merged})
        insert = upsert(self._connection, table)
        self._many(insert.on_conflict_do_update(index_elements=keys, set_={"sketch": insert.excluded.sketch}), rows)

    def reject(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Sets aside what can never be counted, with where it stood."""
        self._many(upsert(self._connection, t.rejected).on_conflict_do_nothing(), list(rows))

    def keep_latest(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Enters rows, at most one of a primary key, each in place of the one there unless that one is later."""
        keys = [column.name for column in table.primary_key]
        insert = upsert(self._connection, table)
        new, old = insert.excluded, table.c
        update = insert.on_conflict_do_update(
            index_elements=keys,
            set_={column.name: new[column.name] for column in table.c if column.name not in keys},
            where=sa.tuple_(new.at, new.report_id) > sa.tuple_(old.at, old.report_id),
        )
        self._many(update, list(rows))

    def save_heartbeats(self, last_seen: Mapping[tuple[str, str], int], limit: int) -> None:
        """The latest heartbeat (epoch ms) of each (organisation, host); the `limit` latest hosts of each are kept."""
        rows = [{"organisation_id": o, "host": h, "last_seen_at": at} for (o, h), at in last_seen.items()]
        insert = upsert(self._connection, t.heartbeats)
        later = insert.excluded.last_seen_at > t.heartbeats.c.last_seen_at
        self._many(
            insert.on_conflict_do_update(
                index_elements=["organisation_id", "host"],
                set_={"last_seen_at": insert.excluded.last_seen_at},
                where=later,
            ),
            rows,
        )
        h = t.heartbeats.c
        latest_first = sa.func.row_number().over(
            partition_by=h.organisation_id, order_by=(h.last_seen_at.desc(), h.host.desc())
        )
        for part in _chunks(sorted({organisation for organisation, _ in last_seen})):
            numbered = sa.select(h.organisation_id, h.host, latest_first.label("n")).where(h.organisation_id.in_(part))
            ranked = numbered.subquery()
            beyond = sa.select(ranked.c.organisation_id, ranked.c.host).where(ranked.c.n > limit)
            self._connection.execute(t.heartbeats.delete().where(sa.tuple_(h.organisation_id, h.host).in_(beyond)))

    def _many(self, statement: sa.Executable, rows: list[Any]) -> None:
        if rows:
            self._connection.execute(statement, rows)


def _chunks(items: list[K]) -> Iterator[list[K]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
