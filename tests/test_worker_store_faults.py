"""The store failing in the middle of a batch: the batch is tried again and counts once, whatever it was."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from backends.log import open_admin, open_producer
from backends.store.counting import Counting
from backends.store.engine import open_engine
from backends.store.migrate import migrate
from service import metrics
from tests.blocking import waiting
from tests.servers.postgres import Postgres
from tests.tenants import PARTITIONS, Tenants
from tests.working import until, working
from workers.loop import Worker


@contextmanager
def traffic(store_url: str, folder: Path) -> Iterator[tuple[sa.Engine, str, Tenants]]:
    """Tenants on a SQLite log, which plays no part here, and a store that has counted their first events."""
    engine = open_engine(store_url)
    log_url = f"sqlite:///{folder}/log.db"
    with closing(open_admin(log_url)) as admin:
        admin.create_topic("t", PARTITIONS, 1)
    producer = open_producer(log_url)
    producer.partitions("t")
    tenants = Tenants(engine, producer, "t", number=3)
    tenants.send(1)
    with working(engine, log_url, ["t"], "g"):
        until(tenants.counted)
    yield engine, log_url, tenants
    producer.close(5)
    engine.dispose()


class At:
    """Does something once, just before the engine sends the first statement that begins so."""

    def __init__(self, engine: sa.Engine, statement: str, do: Callable[[], object]) -> None:
        self.done = threading.Event()

        def before(connection: object, cursor: object, text: str, *_: object) -> None:
            if text.startswith(statement) and not self.done.is_set():
                self.done.set()
                do()

        sa.event.listen(engine, "before_cursor_execute", before)


def put_off() -> float:
    return float(metrics.environment_errors.labels("store")._value.get())


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQLSTATEs of what workers put their work off for."""
    found: list[str] = []
    back_off = Worker._back_off

    def noted(worker: Worker, part: str, error: Exception, failures: int) -> int:
        found.append(getattr(getattr(error, "orig", None), "sqlstate", None) or "")
        return back_off(worker, part, error, failures)

    monkeypatch.setattr(Worker, "_back_off", noted)
    return found


def test_a_conflict_of_transactions_is_tried_again(postgres_url: str, tmp_path: Path, states: list[str]) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable')
    with traffic(postgres_url, tmp_path) as (engine, log_url, tenants):

        def conflict() -> None:
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("UPDATE ledger SET events = events")

        before = put_off()
        At(engine, "INSERT INTO ledger", conflict)
        tenants.send(2)
        with working(engine, log_url, ["t"], "g"):
            until(tenants.counted)
        assert "40001" in states
        assert put_off() > before
        tenants.check()


def test_a_deadlock_is_tried_again(postgres_url: str, tmp_path: Path, states: list[str]) -> None:
    with traffic(postgres_url, tmp_path) as (engine, log_url, tenants):
        other = psycopg.connect(postgres_url)
        other.execute("SET deadlock_timeout = '1min'")  # so that it is the worker that is chosen

        def entangle() -> None:
            other.execute("SELECT FROM ledger FOR UPDATE")
            thread.start()
            until(lambda: waiting(postgres_url))

        def want_what_the_worker_has() -> None:
            other.execute("SELECT FROM organisations FOR UPDATE")
            other.rollback()

        thread = threading.Thread(target=want_what_the_worker_has)
        before = put_off()
        At(engine, "INSERT INTO ledger", entangle)
        tenants.send(2)
        with working(engine, log_url, ["t"], "g"):
            until(tenants.counted)
        thread.join(20)
        other.close()
        assert states == ["40P01"]
        assert put_off() == before + 1
        tenants.check()


def test_a_database_that_restarts_in_mid_transaction_is_waited_for(private_postgres: Postgres, tmp_path: Path) -> None:
    url = f"{private_postgres.url}/postgres"
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()
    with traffic(url, tmp_path) as (engine, log_url, tenants):
        at = At(engine, "INSERT INTO ledger", private_postgres.stop)
        tenants.send(2)
        with working(engine, log_url, ["t"], "g") as worker:
            at.done.wait(60)
            until(lambda: worker.worker.problem == "store is away")
            private_postgres.start()
            until(tenants.counted)
            until(lambda: worker.worker.problem is None)
        tenants.check()


def disk_full(connection: psycopg.Connection) -> None:
    connection.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
    )
    connection.execute("CREATE TRIGGER full_disk BEFORE INSERT ON counts EXECUTE FUNCTION full_disk()")


def room_again(connection: psycopg.Connection) -> None:
    connection.execute("DROP TRIGGER full_disk ON counts")


def become_standby(connection: psycopg.Connection, mode: str = "on") -> None:
    connection.execute(f'ALTER DATABASE "{connection.info.dbname}" SET default_transaction_read_only = {mode}')
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def become_primary(connection: psycopg.Connection) -> None:
    connection.execute("SET default_transaction_read_only = off")
    become_standby(connection, "off")


def lose_rights(connection: psycopg.Connection) -> None:
    connection.execute("ALTER TABLE counts RENAME TO counts_of_another_release")


def regain_rights(connection: psycopg.Connection) -> None:
    connection.execute("ALTER TABLE counts_of_another_release RENAME TO counts")


@pytest.mark.parametrize(
    ("breaks", "mends", "state"),
    [
        (disk_full, room_again, "53100"),
        (become_standby, become_primary, "25006"),
        (lose_rights, regain_rights, "42P01"),
    ],
    ids=["disk full", "standby", "a table that is not there"],
)
def test_a_store_that_takes_nothing_means_lag_and_never_poison(
    postgres_url: str,
    tmp_path: Path,
    breaks: Callable[[psycopg.Connection], None],
    mends: Callable[[psycopg.Connection], None],
    state: str,
    states: list[str],
) -> None:
    with traffic(postgres_url, tmp_path) as (engine, log_url, tenants):
        tenants.send(2)
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            breaks(connection)
        before = put_off()
        with working(engine, log_url, ["t"], "g") as worker:
            until(lambda: put_off() >= before + 3)
            assert worker.worker.problem == "store is away"
            assert state in states
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                mends(connection)
            until(tenants.counted)
        assert "rejected:poison" not in Counting(engine).ledger()
        tenants.check()
