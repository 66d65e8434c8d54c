"""Opens the store. The one place that knows which database it is; all else speaks SQLAlchemy Core to either."""

import logging
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

ENVIRONMENT_ERRORS = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)
"""The database is away, full, overloaded or gave up a lock: the same work may succeed later.

Engines opened here raise these for all that `is_environment` calls so, and for nothing else that has a SQLSTATE.
"""

# PostgreSQL's classes that are no fault of a value: the connection, a transaction that may not write (a standby),
# rights, conflicts with other transactions, resources such as disk and memory, an operator at work, the system.
_ENVIRONMENT_CLASSES = {"08", "25", "28", "3D", "3F", "40", "53", "55", "57", "58", "F0", "XX"}
# No rights, no such table, column or object, a plan from before a migration: tables that are not as this release has
# them, which no other value would mend.
_ENVIRONMENT_STATES = {"42501", "42P01", "42703", "42704", "0A000"}

_UNDEFINED_TABLE = "42P01"

# A worker frozen in mid-transaction holds its partitions' offsets; after this its successors go on without it.
_IDLE_MS = 15_000


def is_environment(error: BaseException) -> bool:
    """Whether the database or the way to it is at fault, and not what was to be written.

    Of SQLAlchemy's errors or a driver's own. What has no SQLSTATE is told by its type.
    """
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    state = getattr(original, "sqlstate", None)
    if state:
        return state[:2] in _ENVIRONMENT_CLASSES or state in _ENVIRONMENT_STATES
    if type(original) is sqlite3.DatabaseError:  # the file is damaged, or no database
        return True
    unwrapped = tuple(kind for driver in _drivers() for kind in (driver.OperationalError, driver.InterfaceError))
    return isinstance(original, unwrapped) or isinstance(error, ENVIRONMENT_ERRORS)


def _drivers() -> list[Any]:
    """Those that an error can be of. PostgreSQL's is imported with the first engine for it, since that takes 100 ms."""
    return [sqlite3, sys.modules["psycopg"]] if "psycopg" in sys.modules else [sqlite3]


def open_engine(url: str, pool_size: int = 5) -> sa.Engine:
    """Does not connect yet. Raises ValueError for an address that is neither PostgreSQL nor SQLite.

    Its errors do not repeat the values of a statement, which may be a user's, since errors end up in logs.
    """
    if url.startswith(("postgresql://", "postgres://")):
        try:
            return _postgres(sa.make_url(url), pool_size)
        except (sa.exc.ArgumentError, ValueError):
            pass  # said below; the address is not repeated, since it may hold a password
    elif url.startswith("sqlite:///") and url != "sqlite:///":
        return _sqlite(url)
    raise ValueError("not a store address (postgresql://user@host/db or sqlite:///path)")


def ping(engine: sa.Engine) -> str | None:
    """None where the store answers and has its tables, else a few words on what is wrong."""
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT next_offset FROM offsets LIMIT 1"))
    except ENVIRONMENT_ERRORS as error:
        missing = "no such table" in str(error) or getattr(error.__cause__, "sqlstate", None) == _UNDEFINED_TABLE
        return "no tables; run zenstep migrate" if missing else "does not answer"
    return None


def _postgres(url: sa.URL, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        hide_parameters=True,
        # Committed means on disk whatever the server's default: nothing replays what a crash would take back.
        connect_args={
            "connect_timeout": 5,
            "tcp_user_timeout": 10_000,  # ms: a server that vanished without a word is an error, not a wait for ever
            "options": f"-c synchronous_commit=on -c timezone=UTC -c idle_in_transaction_session_timeout={_IDLE_MS}",
            # A plan made while a table was empty reads all of it long after it has grown, one from before a rebuild's
            # swap locks tables that are about to be dropped, and poolers may change the server between statements.
            "prepare_threshold": None,
        },
    )
    sa.event.listen(engine, "handle_error", _sorted_out, retval=True)
    # It warns of errors that it raises no more, in the server's words, which may have a value in them.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    return engine


def _sorted_out(context: sa.engine.ExceptionContext) -> BaseException | None:
    """The drivers' types are not by whose fault it is: a standby is an InternalError, too long a key Operational."""
    original, error = context.original_exception, context.sqlalchemy_exception
    if not isinstance(original, tuple(driver.Error for driver in _drivers())):
        return None
    if not isinstance(error, sa.exc.DBAPIError):
        return None
    if is_environment(original):
        kind: type[sa.exc.DBAPIError] = sa.exc.OperationalError
    else:
        kind = sa.exc.DataError
    if isinstance(error, ENVIRONMENT_ERRORS) == is_environment(original):
        return None
    sorted_out = kind(context.statement, None, original, hide_parameters=True)
    sorted_out.connection_invalidated = error.connection_invalidated
    return sorted_out


def copy(connection: sa.Connection, table: sa.Table, columns: Iterable[str], rows: bytes) -> None:
    """Enters rows in the binary form of PostgreSQL's COPY, which looks for none of them and logs a page at once.

    SQLAlchemy has no way to it, so its errors are told here as it would tell them.
    """
    import psycopg  # see _drivers

    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    statement = f"COPY {table.name} ({', '.join(columns)}) FROM STDIN (FORMAT binary)"
    try:
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as stream:
            stream.write(rows)
    except psycopg.Error as error:
        raise _told(error, statement) from error


@contextmanager
def pipelined(connection: sa.Connection) -> Iterator[None]:
    """Statements inside are sent and not waited for until the end, on PostgreSQL. None of them may return rows.

    SQLAlchemy does not know of it, so what is raised at the end is told here as it would tell it.
    """
    if connection.dialect.name != "postgresql":
        yield
        return
    import psycopg  # see _drivers

    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    try:
        with driver.pipeline():
            yield
    except psycopg.Error as error:
        raise _told(error, None) from error


def _told(error: Any, statement: str | None) -> sa.exc.DBAPIError:
    """A psycopg error as SQLAlchemy's, of the kinds that `_sorted_out` makes."""
    import psycopg  # see _drivers

    if is_environment(error):
        kind: type[sa.exc.DBAPIError] = sa.exc.OperationalError
    else:
        kind = sa.exc.IntegrityError if isinstance(error, psycopg.IntegrityError) else sa.exc.DataError
    return kind(statement, None, error, hide_parameters=True)


def _sqlite(url: str) -> sa.Engine:
    path = url.removeprefix("sqlite:///")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": 30}, hide_parameters=True)
    sa.event.listen(engine, "handle_error", _sorted_out, retval=True)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # SQLAlchemy's BEGIN below, not the driver's
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.create_function("unhex", 1, _unhex, deterministic=True)  # SQLite's own is of 3.41

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes later must not find that another has written in between.
        mode = "DEFERRED" if connection.get_execution_options().get("read_only") else "IMMEDIATE"
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


def read_only(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that only read: on SQLite they wait for no writer and stop none."""
    return engine.execution_options(read_only=True)


def upsert(engine: sa.Engine | sa.Connection, table: sa.Table) -> "sa.dialects.postgresql.Insert":
    """An INSERT of this database's dialect, for ON CONFLICT (both dialects have the same methods)."""
    return insert_of(engine.dialect.name, table)


def insert_of(dialect: str, table: sa.Table) -> "sa.dialects.postgresql.Insert":
    """As `upsert`, by the dialect's name."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)  # type: ignore[return-value]


def _unhex(value: str | None) -> bytes | None:
    return None if value is None else bytes.fromhex(value)
