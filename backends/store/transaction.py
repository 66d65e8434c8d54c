"""The worker's transaction: ids, counters, sessions, sketches, ledger and offsets are written together or not at all.

The first statements lock: the offsets of the partitions by moving them, then the rows of the organisations, each in
key order. After that nothing another worker does can come between what is read here and what is written, and no two
workers can wait for each other. Organisations rarely share a lock: normally one worker has all of a tenant.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from backends.store.engine import upsert
from backends.store.rows import SKETCH_ROWS, STATEMENT_ROWS, Given, chunks, given
from schemas import tables as t

K = TypeVar("K")

CAREFUL_BATCHES = 20  # after one with a duplicate; a batch that hoped in vain is entered twice


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


class Hope:
    """Whether ids are likely to be new, all of them: not where some of the last batches' were not."""

    def __init__(self) -> None:
        self._careful = 0

    @property
    def of_none(self) -> bool:
        """Of no duplicate."""
        return self._careful == 0

    def learn(self, duplicates: int) -> None:
        """What a batch had of them."""
        self._careful = CAREFUL_BATCHES if duplicates else max(0, self._careful - 1)


class Transaction:
    """One batch's writes, on an open connection."""

    def __init__(self, connection: sa.Connection, hope: Hope | None = None) -> None:
        self._connection = connection
        self._hope = hope or Hope()

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
        wanted = [(organisation,) for organisation in sorted(set(organisations))]
        found: set[str] = set()
        for rows in self._given([c], wanted):
            query = sa.select(c).where(c.in_(sa.select(rows.table.c[c.name]))).order_by(c)
            locked = query.with_for_update(key_share=True, of=t.organisations)
            found.update(self._connection.execute(locked, rows.parameters).scalars())
        return found

    def forgotten(self, organisations: Iterable[str], persons: Iterable[str] = ()) -> list[tuple[str, str, int]]:
        """Who is to be forgotten in these organisations, or these in any: (organisation, digest, epoch ms)."""
        f = t.forgotten.c
        found: list[tuple[str, str, int]] = []
        for column, values in ((f.organisation_id, organisations), (f.user_digest, persons)):
            for rows in self._given([column], [(value,) for value in sorted(set(values))]):
                whose = column.in_(sa.select(rows.table.c[column.name]))
                query = sa.select(f.organisation_id, f.user_digest, f.at).where(whose)
                found += [(row[0], row[1], row[2]) for row in self._connection.execute(query, rows.parameters)]
        return found

    def horizon(self) -> int:
        """The first day whose ids are still kept (days since 1970)."""
        return self._connection.execute(sa.select(sa.func.max(t.horizon.c.day))).scalar() or 0

    def seen_on_any_day(self, ids: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these (organisation, event id) pairs that are in, whatever their day."""
        s = t.seen.c
        return self._known(t.seen, [s.organisation_id, s.event_id], list(ids))

    def add_seen(self, ids: Sequence[tuple[str, int, str]]) -> set[tuple[str, str]]:
        """Enters (organisation, day, event id), each pair of the first and the last once; returns those pairs that
        were in already.
        """
        known: set[tuple[str, str]] = set()
        columns = [t.seen.c.organisation_id, t.seen.c.day, t.seen.c.event_id]
        for part in chunks(ids, STATEMENT_ROWS):
            rows = given(self._connection, columns, part)
            if self._hope.of_none and self._all_new(rows):
                continue
            entered = self._entered(_insert(self._connection, t.seen, rows).on_conflict_do_nothing(), rows)
            if len(entered) < len(part):
                known.update((one[0], one[2]) for one in part if one[0] + one[2] not in entered)
            self._hope.learn(len(part) - len(entered))
        return known

    def _all_new(self, rows: Given) -> bool:
        """Enters them without looking for each first, which takes PostgreSQL half the time; all or none of them."""
        try:
            with self.part():
                self._connection.execute(_insert(self._connection, t.seen, rows), rows.parameters)
        except sa.exc.IntegrityError:
            return False
        return True

    def _entered(self, insert: "sa.dialects.postgresql.Insert", rows: Given) -> set[str]:
        """Of the ids that were new, each organisation and id in one text."""
        s = t.seen.c
        returning = insert.returning(s.organisation_id, s.event_id)
        if self._connection.dialect.name == "postgresql":
            # As one value: it is read in a fraction of the time that so many rows take.
            new = returning.cte("entered").c
            each = sa.cast(new.organisation_id, sa.Text) + sa.cast(new.event_id, sa.Text)
            listed = self._connection.execute(sa.select(sa.func.string_agg(each, ",")), rows.parameters).scalar()
            return set(listed.split(",")) if listed else set()
        return {row[0] + row[1] for row in self._connection.execute(returning, rows.parameters)}

    def admit_names(self, wanted: Mapping[str, set[str]], limit: int) -> set[tuple[str, str]]:
        """Those (organisation, custom event name) that count under their own name: the first `limit` of each."""
        c = t.custom_names.c
        pairs = [(organisation, name) for organisation, names in wanted.items() for name in sorted(names)]
        admitted = self._known(t.custom_names, [c.organisation_id, c.name], pairs)
        fresh: dict[str, list[str]] = {}
        for organisation, name in pairs:
            if (organisation, name) not in admitted:
                fresh.setdefault(organisation, []).append(name)
        for organisation, names in fresh.items():
            count = sa.select(sa.func.count()).where(c.organisation_id == organisation)
            room = max(0, limit - (self._connection.execute(count).scalar() or 0))
            entered = [(organisation, name) for name in names[:room]]
            for rows in self._given([c.organisation_id, c.name], entered):
                insert = _insert(self._connection, t.custom_names, rows).on_conflict_do_nothing()
                self._connection.execute(insert, rows.parameters)
            admitted.update(entered)
        return admitted

    def sessions(self, keys: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], SessionRow]:
        """Those of these (organisation, flow, session) that are known."""
        table, names = t.sessions, ["organisation_id", "flow_id", "session"]
        fields = [table.c[name] for name in SessionRow._fields]
        found: dict[tuple[str, str, str], SessionRow] = {}
        for rows in self._given([table.c[name] for name in names], list(keys)):
            query = sa.select(*(table.c[name] for name in names), *fields).select_from(rows.joined(table, names))
            for o, f, s, first, started, completed, dismissed, steps, furthest, timed in self._connection.execute(
                query, rows.parameters
            ):
                row = SessionRow(first, started, completed, dismissed, tuple(steps), furthest, timed)
                found[o, f, s] = row
        return found

    def save_sessions(self, sessions: Mapping[tuple[str, str, str], SessionRow]) -> None:
        """Enters or replaces."""
        names = ["organisation_id", "flow_id", "session", *SessionRow._fields]
        self._upsert(
            t.sessions,
            names,
            [(*key, *row) for key, row in sessions.items()],
            lambda new: {name: new[name] for name in SessionRow._fields},
        )

    def add(self, table: sa.Table, deltas: Mapping[tuple[Any, ...], Sequence[int]]) -> None:
        """Adds to the counters of a table of cells. A key is the table's primary key, in its order."""
        keys = [column.name for column in table.primary_key]
        counters = [column.name for column in table.c if column.name not in keys]
        rows = [(*key, *delta) for key, delta in deltas.items()]
        self._upsert(table, keys + counters, rows, lambda new: {name: table.c[name] + new[name] for name in counters})

    def merge_sketches(
        self, values: Mapping[tuple[Any, ...], K], merge: Callable[[str, bytes | None, K], bytes]
    ) -> None:
        """Puts values into sketches. A key is the table's primary key; `merge` gets kind, stored and values."""
        table = t.sketches
        keys = [column.name for column in table.primary_key]
        kind = keys.index("kind")
        for part in chunks(list(values), SKETCH_ROWS):
            stored: dict[tuple[Any, ...], bytes] = {}
            for rows in self._given(list(table.primary_key), part):
                query = sa.select(table).select_from(rows.joined(table, keys))
                stored = {tuple(row[:-1]): row[-1] for row in self._connection.execute(query, rows.parameters)}
            changed = []
            for key in part:
                before = stored.get(key)
                merged = merge(key[kind], before, values[key])
                if merged != before:  # users who came before change nothing
                    changed.append((*key, merged))
            self._upsert(table, [*keys, "sketch"], changed, lambda new: {"sketch": new.sketch})

    def reject(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Sets aside what can never be counted, with where it stood."""
        many = list(rows)
        names = list(many[0]) if many else []
        self._upsert(t.rejected, names, [tuple(row.values()) for row in many], None)

    def keep_latest(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Enters rows, at most one of a primary key, each in place of the one there unless that one is later."""
        keys = [column.name for column in table.primary_key]
        names = list(rows[0]) if rows else []
        self._upsert(
            table,
            names,
            [tuple(row[name] for name in names) for row in rows],
            lambda new: {name: new[name] for name in names if name not in keys},
            lambda new: sa.tuple_(new.at, new.report_id) > sa.tuple_(table.c.at, table.c.report_id),
        )

    def save_heartbeats(self, last_seen: Mapping[tuple[str, str], int], limit: int) -> None:
        """The latest heartbeat (epoch ms) of each (organisation, host); the `limit` latest hosts of each are kept."""
        h = t.heartbeats.c
        self._upsert(
            t.heartbeats,
            ["organisation_id", "host", "last_seen_at"],
            [(*page, at) for page, at in last_seen.items()],
            lambda new: {"last_seen_at": new.last_seen_at},
            lambda new: new.last_seen_at > h.last_seen_at,
        )
        latest_first = sa.func.row_number().over(
            partition_by=h.organisation_id, order_by=(h.last_seen_at.desc(), h.host.desc())
        )
        whose = [(organisation,) for organisation in sorted({organisation for organisation, _ in last_seen})]
        for rows in self._given([h.organisation_id], whose):
            among = h.organisation_id.in_(sa.select(rows.table.c.organisation_id))
            numbered = sa.select(h.organisation_id, h.host, latest_first.label("n")).where(among)
            ranked = numbered.subquery()
            beyond = sa.select(ranked.c.organisation_id, ranked.c.host).where(ranked.c.n > limit)
            delete = t.heartbeats.delete().where(sa.tuple_(h.organisation_id, h.host).in_(beyond))
            self._connection.execute(delete, rows.parameters)

    def _known(
        self, table: sa.Table, columns: list[sa.Column[Any]], keys: Sequence[tuple[str, str]]
    ) -> set[tuple[str, str]]:
        """Those keys that a table has."""
        found: set[tuple[str, str]] = set()
        for rows in self._given(columns, keys):
            query = sa.select(*columns).select_from(rows.joined(table, [column.name for column in columns]))
            found.update((row[0], row[1]) for row in self._connection.execute(query, rows.parameters))
        return found

    def _upsert(
        self,
        table: sa.Table,
        names: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
        update: Callable[[Any], dict[str, Any]] | None,
        where: Callable[[Any], sa.ColumnElement[bool]] | None = None,
    ) -> None:
        """Enters rows; one that is there is updated by what `update` says of the new one, where `where` holds."""
        for part in self._given([table.c[name] for name in names], rows):
            insert = _insert(self._connection, table, part)
            if update is None:
                insert = insert.on_conflict_do_nothing()
            else:
                new = insert.excluded
                keys = [column.name for column in table.primary_key]
                condition = where(new) if where is not None else None
                insert = insert.on_conflict_do_update(index_elements=keys, set_=update(new), where=condition)
            self._connection.execute(insert, part.parameters)

    def _given(self, columns: Sequence[sa.Column[Any]], rows: Sequence[Sequence[Any]]) -> Iterator[Given]:
        for part in chunks(rows, STATEMENT_ROWS):
            yield given(self._connection, columns, part)


def _insert(connection: sa.Connection, table: sa.Table, rows: Given) -> "sa.dialects.postgresql.Insert":
    names = [column.name for column in rows.table.c]
    # SQLite takes ON CONFLICT for a join's ON where a SELECT has no WHERE.
    return upsert(connection, table).from_select(names, sa.select(rows.table).where(sa.true()))
