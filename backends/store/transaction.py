"""The worker's transaction: ids, counters, sessions, sketches, ledger and offsets are written together or not at all.

The first statements lock: the offsets of the partitions by moving them, then the rows of the organisations, each in
key order. After that nothing another worker does can come between what is read here and what is written, and no two
workers can wait for each other. Organisations rarely share a lock: normally one worker has all of a tenant.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa

from backends.store import statements
from backends.store.engine import copy, pipelined
from backends.store.rows import Columns, chunks, parameters, seen_rows
from schemas import tables as t

Key = tuple[Any, ...]
"""The primary key of a table, in its order."""

_NO_SKETCHES: Mapping[Key, bytes] = {}
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
        self._dialect = connection.dialect.name
        self._hope = hope or Hope()

    @contextmanager
    def part(self) -> Iterator[None]:
        """What is written inside is undone on any exception; the rest of the transaction stays.

        Not SQLAlchemy's: a savepoint that is rolled back to is still open, with a lock of its own to the commit, and of
        thousands of them, one for each event that fails, PostgreSQL has none left.
        """
        execute = self._connection.exec_driver_sql
        execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if not self._connection.invalidated:
                execute("ROLLBACK TO SAVEPOINT part")
                execute("RELEASE SAVEPOINT part")
            raise
        execute("RELEASE SAVEPOINT part")

    def pipelined(self) -> AbstractContextManager[None]:
        """What is written inside is waited for at its end: the database works while the next is put together.

        Nothing may be looked for inside. Raises at its end, or at a later write, what any of it raises.
        """
        return pipelined(self._connection)

    def move_offsets(self, moves: Iterable[Move]) -> None:
        """Compare and set. Raises OffsetMoved.

        Writes from the first statement on: a rebuild's swap holds workers up there, before they have a transaction that
        it would wait for. One after another in the order of their key, so that no two workers wait for each other.
        """
        for move in sorted(moves):
            values = {
                "of_topic": move.topic,
                "of_partition": move.partition,
                "expected": move.expected,
                "following": move.following,
                "through": move.processed_through,
            }
            if self._connection.execute(statements.move_offset(), values).rowcount != 1:
                raise OffsetMoved(move.topic, move.partition)

    def lock_organisations(self, organisations: Iterable[str]) -> set[str]:
        """Holds these organisations to the end of the transaction; returns those that exist."""
        wanted = [(organisation,) for organisation in sorted(set(organisations))]
        query = statements.locked_organisations(self._dialect)
        return {row[0] for row in self._select(query, (t.organisations.c.organisation_id,), wanted)}

    def forgotten(self, organisations: Iterable[str], persons: Iterable[str] = ()) -> list[tuple[str, str, int]]:
        """Who is to be forgotten in these organisations, or these in any: (organisation, digest, epoch ms)."""
        picked = ("organisation_id", "user_digest", "at")
        found: list[tuple[str, str, int]] = []
        for name, values in (("organisation_id", organisations), ("user_digest", persons)):
            given = [(value,) for value in sorted(set(values))]
            found += [(row[0], row[1], row[2]) for row in self._found(t.forgotten, (name,), picked, given)]
        return found

    def horizon(self) -> int:
        """The first day whose ids are still kept (days since 1970)."""
        return self._connection.execute(statements.horizon()).scalar() or 0

    def seen_on_any_day(self, ids: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these (organisation, event id) pairs that are in, whatever their day."""
        names = ("organisation_id", "event_id")
        return {(row[0], row[1]) for row in self._found(t.seen, names, names, list(ids))}

    def add_seen(self, ids: Mapping[tuple[str, int], Sequence[str]]) -> set[tuple[str, str]]:
        """Enters event ids by organisation and day; returns the (organisation, event id) that were in already.

        In the order of the table's key, so that each page of its index is come to once. An organisation's ids are each
        given once, whatever their days.
        """
        ordered = {of: sorted(ids[of]) for of in sorted(ids)}
        if self._hope.of_none and self._all_new(ordered):
            return set()
        known: set[tuple[str, str]] = set()
        for part in chunks(_rows_of(ordered)):
            entered = self._entered(part)
            if len(entered) < len(part):
                known.update((one[0], one[2]) for one in part if one[0] + one[2] not in entered)
            self._hope.learn(len(part) - len(entered))
        return known

    def _all_new(self, ids: Mapping[tuple[str, int], Sequence[str]]) -> bool:
        """Enters them without looking for each first, which takes PostgreSQL a third of the time; all or none."""
        if not ids:
            return True
        try:
            with self.part():
                if self._dialect == "postgresql":
                    copy(self._connection, t.seen, _SEEN, seen_rows(ids))
                else:
                    insert = statements.insert(self._dialect, t.seen, _SEEN)
                    self._execute(insert, statements.columns(t.seen, _SEEN), _rows_of(ids))
        except sa.exc.IntegrityError:
            return False
        return True

    def _entered(self, ids: Sequence[tuple[str, int, str]]) -> set[str]:
        """Enters those that are missing, and returns each organisation and id of them in one text."""
        statement = statements.insert_entered(self._dialect, t.seen, _SEEN, ("organisation_id", "event_id"))
        rows = list(self._select(statement, statements.columns(t.seen, _SEEN), ids))
        if self._dialect == "postgresql":
            return set(rows[0][0].split(",")) if rows[0][0] else set()
        return {row[0] + row[1] for row in rows}

    def admit_names(self, wanted: Mapping[str, set[str]], limit: int) -> set[tuple[str, str]]:
        """Those (organisation, custom event name) that count under their own name: the first `limit` of each."""
        c, names = t.custom_names.c, ("organisation_id", "name")
        pairs = [(organisation, name) for organisation, of in wanted.items() for name in sorted(of)]
        admitted = {(row[0], row[1]) for row in self._found(t.custom_names, names, names, pairs)}
        fresh: dict[str, list[str]] = {}
        for organisation, name in pairs:
            if (organisation, name) not in admitted:
                fresh.setdefault(organisation, []).append(name)
        for organisation, of in fresh.items():
            count = sa.select(sa.func.count()).where(c.organisation_id == organisation)
            room = max(0, limit - (self._connection.execute(count).scalar() or 0))
            entered = [(organisation, name) for name in of[:room]]
            insert = statements.insert_missing(self._dialect, t.custom_names, names)
            self._execute(insert, statements.columns(t.custom_names, names), entered)
            admitted.update(entered)
        return admitted

    def sessions(self, keys: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], SessionRow]:
        """Those of these (organisation, flow, session) that are known."""
        names = statements.keys(t.sessions)
        found: dict[tuple[str, str, str], SessionRow] = {}
        for row in self._found(t.sessions, names, names + SessionRow._fields, list(keys)):
            o, f, s, first, started, completed, dismissed, steps, furthest, timed = row
            found[o, f, s] = SessionRow(first, started, completed, dismissed, tuple(steps), furthest, timed)
        return found

    def open_days(self, days: Iterable[tuple[str, str, int]], today: int) -> set[tuple[str, str, int]]:
        """Those of these (organisation, flow, bucket of a day) that are open. That of `today` is opened.

        The organisations are to be held: so nobody sums a day up between what is found here and what is added to it.
        """
        names = statements.keys(t.open_days)
        wanted = sorted(days)
        found = {(row[0], row[1], row[2]) for row in self._found(t.open_days, names, names, wanted)}
        opened = [day for day in wanted if day[2] == today and day not in found]
        insert = statements.insert_missing(self._dialect, t.open_days, names)
        self._execute(insert, statements.columns(t.open_days, names), opened)
        return found.union(opened)

    def save_sessions(self, sessions: Mapping[tuple[str, str, str], SessionRow]) -> None:
        """Enters or replaces."""
        names = statements.keys(t.sessions) + SessionRow._fields
        statement = statements.replace(self._dialect, t.sessions, names)
        rows = [(*key, *row) for key, row in sessions.items()]
        self._execute(statement, statements.columns(t.sessions, names), rows)

    def sketches(self, table: sa.Table, wanted: Iterable[Key]) -> dict[Key, bytes]:
        """The sketches of those of these cells that have one."""
        keys = statements.keys(table)
        found = self._found(table, keys, keys + t.sketch_of(table), list(wanted))
        return {tuple(row[:-1]): row[-1] for row in found if row[-1] is not None}

    def add(
        self, table: sa.Table, deltas: Mapping[Key, Sequence[int]], sketches: Mapping[Key, bytes] = _NO_SKETCHES
    ) -> None:
        """Adds to the counters of cells; those that have a sketch here have it replaced."""
        keys, counters, sketch = statements.keys(table), statements.counters(table), t.sketch_of(table)
        rows: list[tuple[Any, ...]]
        if sketch:
            nothing = [0] * len(counters)
            rows = [(*key, *delta, sketches.get(key)) for key, delta in deltas.items()]
            rows += [(*key, *nothing, one) for key, one in sketches.items() if key not in deltas]
        else:
            rows = [(*key, *delta) for key, delta in deltas.items()]
        columns = statements.columns(table, keys + counters + sketch)
        self._execute(statements.add(self._dialect, table), columns, rows)

    def reject(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Sets aside what can never be counted, with where it stood."""
        many = list(rows)
        if not many:
            return
        names = tuple(many[0])
        statement = statements.insert_missing(self._dialect, t.rejected, names)
        self._execute(statement, statements.columns(t.rejected, names), [tuple(row.values()) for row in many])

    def keep_latest(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Enters rows, at most one of a primary key, each in place of the one there unless that one is later."""
        if not rows:
            return
        names = tuple(rows[0])
        statement = statements.replace_earlier(self._dialect, table, names, ("at", "report_id"))
        given = [tuple(row[name] for name in names) for row in rows]
        self._execute(statement, statements.columns(table, names), given)

    def save_heartbeats(self, last_seen: Mapping[tuple[str, str], int], limit: int) -> None:
        """The latest heartbeat (epoch ms) of each (organisation, host); the `limit` latest hosts of each are kept."""
        names = ("organisation_id", "host", "last_seen_at")
        statement = statements.replace_earlier(self._dialect, t.heartbeats, names, ("last_seen_at",))
        given = [(*page, at) for page, at in last_seen.items()]
        self._execute(statement, statements.columns(t.heartbeats, names), given)
        whose = [(organisation,) for organisation in sorted({organisation for organisation, _ in last_seen})]
        delete = statements.delete_hosts(self._dialect)
        self._execute(delete, (t.heartbeats.c.organisation_id,), whose, limit=limit)

    def _found(
        self, table: sa.Table, names: statements.Names, picked: statements.Names, rows: Sequence[Sequence[Any]]
    ) -> Iterator[Any]:
        statement = statements.found(self._dialect, table, names, picked)
        return self._select(statement, statements.columns(table, names), rows)

    def _select(self, statement: sa.Executable, columns: Columns, rows: Sequence[Sequence[Any]]) -> Iterator[Any]:
        for part in chunks(rows):
            # At once: one after the other, the driver takes several times as long for them.
            yield from self._connection.execute(statement, parameters(self._dialect, columns, part)).all()

    def _execute(
        self, statement: sa.Executable, columns: Columns, rows: Sequence[Sequence[Any]], **more: object
    ) -> None:
        for part in chunks(rows):
            self._connection.execute(statement, parameters(self._dialect, columns, part) | more)


_SEEN = ("organisation_id", "day", "event_id")


def _rows_of(ids: Mapping[tuple[str, int], Sequence[str]]) -> list[tuple[str, int, str]]:
    return [(organisation, day, event) for (organisation, day), events in ids.items() for event in events]
