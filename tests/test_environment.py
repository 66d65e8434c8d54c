"""Whose fault an error of the store is: the database's and the way to it, or that of what was to be written."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from backends.store.engine import ENVIRONMENT_ERRORS, is_environment, open_engine, ping, pipelined
from tests.servers.postgres import Postgres

ENVIRONMENT = {
    "connection lost": "08006",
    "standby": "25006",
    "frozen in a transaction": "25P03",
    "password changed": "28P01",
    "database dropped": "3D000",
    "schema dropped": "3F000",
    "conflict of transactions": "40001",
    "deadlock": "40P01",
    "no rights": "42501",
    "no such table": "42P01",
    "no such column": "42703",
    "disk full": "53100",
    "out of memory": "53200",
    "too many connections": "53300",
    "lock not to be had": "55P03",
    "statement cancelled": "57014",
    "shutting down": "57P01",
    "still starting": "57P03",
    "disk fails": "58030",
    "damaged": "XX001",
}
OF_A_VALUE = {
    "cardinality": "21000",
    "too long": "22001",
    "out of range": "22003",
    "not null": "23502",
    "twice": "23505",
    "operator for no such type": "42883",
    "an index row too large": "54000",
}


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(postgres_url)
    yield opened
    opened.dispose()


def raised(engine: sa.Engine, statement: str) -> sa.exc.DBAPIError:
    with pytest.raises(sa.exc.DBAPIError) as caught, engine.begin() as connection:
        connection.exec_driver_sql(statement)
    return caught.value


def as_state(state: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$"


@pytest.mark.parametrize("state", ENVIRONMENT.values(), ids=ENVIRONMENT.keys())
def test_a_fault_of_the_database_is_the_environments(engine: sa.Engine, state: str) -> None:
    error = raised(engine, as_state(state))
    assert isinstance(error, ENVIRONMENT_ERRORS)
    assert is_environment(error)
    assert error.orig is not None and is_environment(error.orig)


@pytest.mark.parametrize("state", OF_A_VALUE.values(), ids=OF_A_VALUE.keys())
def test_a_fault_of_a_value_is_not(engine: sa.Engine, state: str) -> None:
    error = raised(engine, as_state(state))
    assert not isinstance(error, ENVIRONMENT_ERRORS)
    assert not is_environment(error)


def test_a_value_that_the_driver_refuses_is_not_the_environments(engine: sa.Engine) -> None:
    with pytest.raises(sa.exc.DataError) as caught, engine.begin() as connection:
        connection.execute(sa.text("SELECT CAST(:name AS text)"), {"name": "a\0b"})
    assert not is_environment(caught.value)


def test_an_error_made_anew_repeats_no_value(engine: sa.Engine) -> None:
    secret = "a user's own"
    with pytest.raises(ENVIRONMENT_ERRORS) as caught, engine.begin() as connection:
        connection.execute(sa.text("SELECT nowhere, CAST(:v AS text)"), {"v": secret})
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("INSERT INTO things VALUES ('a')", sa.exc.IntegrityError),
        ("INSERT INTO things VALUES (repeat('a', 99))", sa.exc.DataError),
        ("INSERT INTO nothings VALUES ('b')", sa.exc.OperationalError),
        ("DO $$ BEGIN RAISE EXCEPTION '' USING ERRCODE = '40001'; END $$", sa.exc.OperationalError),
        ("DO $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$", sa.exc.OperationalError),
    ],
)
@pytest.mark.parametrize("behind", [0, 3])
def test_what_fails_in_a_pipeline_is_told_as_anywhere_and_nothing_of_it_stays(
    engine: sa.Engine, statement: str, kind: type[Exception], behind: int, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (name varchar(9) UNIQUE)")
        connection.exec_driver_sql("INSERT INTO things VALUES ('a')")
    with pytest.raises(kind) as caught, engine.begin() as connection, pipelined(connection):
        connection.exec_driver_sql("INSERT INTO things VALUES ('b')")
        connection.exec_driver_sql(statement)
        for number in range(behind):
            connection.exec_driver_sql(f"INSERT INTO things VALUES ('c{number}')")
    assert is_environment(caught.value) == (kind is sa.exc.OperationalError)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT name FROM things").scalars().all() == ["a"]
    assert caplog.text == "", "the driver repeats what the server said"


def test_a_fault_of_ours_in_a_pipeline_is_raised_and_what_the_store_said_is_not_repeated(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError), engine.begin() as connection, pipelined(connection):
        connection.exec_driver_sql("SELECT CAST('a user''s own' AS integer)")
        raise ZeroDivisionError
    assert caplog.text == ""
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


def test_what_is_pipelined_is_there_afterwards(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (name text)")
        with pipelined(connection):
            for number in range(500):
                connection.execute(sa.text("INSERT INTO things VALUES (repeat(:name, 3000))"), {"name": str(number)})
        assert connection.exec_driver_sql("SELECT count(*) FROM things").scalar_one() == 500


def test_a_database_that_may_only_be_read_is_the_environments(private_postgres: Postgres) -> None:
    url = f"{private_postgres.url}/postgres"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE offsets (next_offset bigint)")
        connection.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    engine = open_engine(url)
    assert is_environment(raised(engine, "INSERT INTO offsets VALUES (1)"))
    private_postgres.stop()
    assert is_environment(raised(engine, "SELECT 1"))
    assert ping(engine) == "does not answer"
    engine.dispose()


def test_no_connection_to_be_had_is_the_environments(postgres_url: str) -> None:
    engine = open_engine(postgres_url, pool_size=1)
    engine.pool._timeout = 0.01  # type: ignore[attr-defined]
    with engine.connect(), pytest.raises(sa.exc.TimeoutError) as caught:
        engine.connect()
    assert is_environment(caught.value)
    engine.dispose()


def test_a_transaction_frozen_in_the_middle_lets_go_of_what_it_holds(postgres_url: str) -> None:
    """So that the successor of a frozen worker can move the offsets that it held."""
    engine = open_engine(postgres_url)
    with engine.connect() as connection:
        milliseconds = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one()
    assert milliseconds == "15s"
    engine.dispose()


def test_sqlite_locked_full_damaged_or_unwritable_is_the_environments(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    engine = open_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (name TEXT UNIQUE)")
        connection.exec_driver_sql("INSERT INTO things VALUES ('a')")
        connection.exec_driver_sql("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert is_environment(raised(engine, "INSERT INTO things VALUES ('b')"))
    assert not is_environment(raised(engine, "INSERT INTO things VALUES ('a')"))
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        with pytest.raises(ENVIRONMENT_ERRORS, match="full"):
            connection.exec_driver_sql("INSERT INTO things VALUES (hex(randomblob(100000)))")
    engine.dispose()
    path.write_bytes(b"no database " * 100)
    assert is_environment(raised(engine, "SELECT 1"))
    engine.dispose()


@pytest.mark.parametrize("error", [KeyError("a bug"), ValueError(), RecursionError(), OverflowError()])
def test_a_bug_of_ours_is_not(error: Exception) -> None:
    assert not is_environment(error)
