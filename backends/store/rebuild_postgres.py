"""Tables beside the live ones on PostgreSQL: a schema of the same database, and a swap of schemas at the end.

The swap renames, it copies nothing, so it takes as long for a million rows as for one. It needs the tables for itself
for that moment. What it cannot have at once it does not wait for, since every reader would wait behind it.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import psycopg
import sqlalchemy as sa

from backends.store.attached import Attached, attached, give
from backends.store.engine import open_engine
from backends.store.rebuild import WRITTEN, Beside, Held, Occupied, RebuildError, Tables
from schemas import tables as t

# The whole wait for all tables. Below PostgreSQL's deadlock_timeout of a second: a reader that holds one table and
# waits for another is never chosen to be ended, and autovacuum never sent away.
LOCK_MS = 700
# The wait for the workers' commits under way. Readers do not wait behind it.
WORKERS_MS = 10_000
# The wait for transactions that see the store as it was before. Nobody but the workers waits meanwhile.
OLDER_SECONDS = 2.0

# Whoever fixed what it sees before the last of the rebuild was committed would find less than that in the new tables.
# Workers that wait for the holder of the lock look anew once they have it.
_OLDER = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
    AND age(backend_xmin) > age(CAST(:now AS xid)) AND NOT :holder = ANY(pg_blocking_pids(pid))
)
"""
_ALONE = 7305043
_MIGRATING = 7305041  # see backends/store/migrate.py


class PostgresBeside(Beside):
    """Seen from a worker the schema `<live>_rebuild` comes first in the search path, the live one second."""

    def __init__(self, url: str) -> None:
        control = open_engine(url)
        with control.begin() as connection:
            found = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('offsets')"
            live = connection.execute(sa.text(found)).scalar()
        if live is None:
            raise RebuildError("the store has no tables yet: run `zenstep migrate`")
        live = live.strip('"')
        super().__init__(control, live, f"{live}_rebuild")
        self._before = f"{live}_before_rebuild"
        self._engine = open_engine(url)
        self._session: sa.Connection | None = None
        path = f"{quoted(self.beside.schema)}, {quoted(live)}"

        @sa.event.listens_for(self._engine, "connect")
        def search(connection: psycopg.Connection, _: object) -> None:
            connection.execute(f"SET search_path TO {path}".encode())
            connection.commit()

    @property
    def engine(self) -> sa.Engine:
        return self._engine

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The swap runs in the session that holds the lock, so that who has lost the one cannot do the other."""
        lock = (_ALONE, sa.func.hashtext(self.live.schema))
        with self.control.connect() as connection:
            alone = connection.execute(sa.select(sa.func.pg_try_advisory_lock(*lock))).scalar()
            connection.commit()
            if not alone:
                raise RebuildError("another rebuild of this store runs")
            self._session = connection
            try:
                yield
            finally:
                self._session = None
                with suppress(sa.exc.SQLAlchemyError):
                    connection.rollback()
                    connection.execute(sa.select(sa.func.pg_advisory_unlock(*lock)))
                connection.invalidate()  # ends the session, and with it the lock, though some time later

    def check(self) -> None:
        with self.control.begin() as connection:
            _check(attached(connection, self.live.schema, _names(connection, self.live.schema)))

    def create(self, conditions: Mapping[str, str]) -> None:
        new, old = quoted(self.beside.schema), quoted(self.live.schema)
        with self.control.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {new}")
            for table in WRITTEN:
                parts = "PARTITION BY RANGE (day)" if table is t.seen else ""
                room = table.info.get("fillfactor")  # LIKE leaves it out
                filled = f"WITH (fillfactor = {room})" if room else ""
                connection.exec_driver_sql(
                    f"CREATE TABLE {new}.{table.name} (LIKE {old}.{table.name} INCLUDING ALL) {parts} {filled}"
                )
            # Workers lock the rows of the organisations they count for; in a copy they do not wait for each other.
            connection.exec_driver_sql(f"CREATE TABLE {new}.organisations (LIKE {old}.organisations INCLUDING ALL)")
            self.beside.state.create(connection)
            self._write_state(connection, conditions)

    def throw_away(self) -> None:
        with self.control.begin() as connection:
            for schema in (self.beside.schema, self._before):
                connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")

    def prepare(self) -> None:
        new, old = quoted(self.beside.schema), quoted(self.live.schema)
        with self.control.begin() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO {new}.organisations SELECT * FROM {old}.organisations AS there WHERE NOT EXISTS "  # noqa: S608
                f"(SELECT FROM {new}.organisations AS here WHERE here.organisation_id = there.organisation_id)"
            )

    def refresh(self) -> None:
        with self.control.begin() as connection:
            for table in self.beside.written():
                connection.exec_driver_sql(f"ANALYZE {quoted(self.beside.schema)}.{table.name}")

    @contextmanager
    def held(self) -> Iterator[Held]:
        assert self._session is not None, "only for the one that is alone"
        with self._session.begin():
            self._session.exec_driver_sql(f"SET LOCAL lock_timeout = {WORKERS_MS}")
            # Every worker's transaction begins by moving its offsets, so none is under way once this is had.
            offsets = f"{quoted(self.live.schema)}.offsets"
            with _occupied(psycopg.errors.LockNotAvailable):
                self._session.exec_driver_sql(f"LOCK TABLE {offsets} IN SHARE ROW EXCLUSIVE MODE")
            yield _Held(self._session, self.live, self.beside, self._before, self.control)

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        with self.control.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            connection.execute(sa.select(self.live[t.offsets])).all()  # from here on it is as it is now
            yield connection
            connection.rollback()

    def close(self) -> None:
        self._engine.dispose()
        self.control.dispose()


class _Held(Held):
    def __init__(
        self, connection: sa.Connection, live: Tables, beside: Tables, before: str, control: sa.Engine
    ) -> None:
        super().__init__(connection, live, beside)
        self._control = control
        self._before = before

    def swap(self) -> None:
        run = self.connection.exec_driver_sql
        live, beside, before = quoted(self.live.schema), quoted(self.beside.schema), quoted(self._before)
        self._let_older_end()
        self._lock()
        names = _names(self.connection, self.live.schema)
        hangs = attached(self.connection, self.live.schema, names)
        _check(hangs)
        for name in set(names) - set(_names(self.connection, self.beside.schema)):
            # A day that live workers have made a partition for: they will not ask for it again.
            day = int(name.removeprefix("seen_"))
            run(f"CREATE TABLE {beside}.{name} PARTITION OF {beside}.seen FOR VALUES FROM ({day}) TO ({day + 1})")
        self._carry_over()
        run(f"CREATE SCHEMA {before}")
        for name in names:
            run(f"ALTER TABLE {live}.{name} SET SCHEMA {before}")
        for name in _names(self.connection, self.beside.schema):
            run(f"ALTER TABLE {beside}.{name} SET SCHEMA {live}")
        give(self.connection, hangs, self.live.schema)

    def _let_older_end(self) -> None:
        now = sa.text("SELECT CAST(pg_current_xact_id() AS text) AS now, pg_backend_pid() AS holder")
        values = dict(self.connection.execute(now).mappings().one())
        deadline = time.monotonic() + OLDER_SECONDS
        while True:
            with self._control.begin() as connection:
                if not connection.execute(sa.text(_OLDER), values).scalar():
                    return
            if time.monotonic() > deadline:
                raise Occupied("a transaction that began earlier is still open")
            time.sleep(0.02)

    def _lock(self) -> None:
        """All or none: what was had is let go by the transaction's end."""
        every = ", ".join(f"{quoted(self.live.schema)}.{table.name}" for table in WRITTEN)
        with _occupied(psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            self.connection.exec_driver_sql(f"SET LOCAL statement_timeout = {LOCK_MS}")
            self.connection.exec_driver_sql(f"LOCK TABLE {every} IN ACCESS EXCLUSIVE MODE")
            # Nobody is added to these in between.
            forgotten = f"{quoted(self.live.schema)}.forgotten"
            self.connection.exec_driver_sql(f"LOCK TABLE {forgotten} IN SHARE MODE")
        self.connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        if not self.connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_MIGRATING))).scalar():
            raise Occupied("the store is being migrated")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _names(connection: sa.Connection, schema: str) -> list[str]:
    """The written tables with the partitions that PostgreSQL has of them."""
    query = (
        "SELECT c.relname FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid "
        "LEFT JOIN pg_class p ON p.oid = i.inhparent "
        "WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind IN ('r', 'p') "
        "AND coalesce(p.relname, c.relname) = ANY(:names) ORDER BY c.relname"
    )
    values = {"schema": quoted(schema), "names": [str(table.name) for table in WRITTEN]}
    return [str(name) for name in connection.execute(sa.text(query), values).scalars()]


def _check(hangs: Attached) -> None:
    if hangs.problems:
        raise RebuildError("the tables cannot be swapped: " + "; ".join(hangs.problems))


@contextmanager
def _occupied(*errors: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        if isinstance(error.orig, errors):
            raise Occupied("the tables are in use") from error
        raise
