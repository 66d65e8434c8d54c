"""The tables: what distributes them, and that the migrations make what the code believes in."""

import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from backends.store.counting import Counting
from backends.store.days import create_day_partitions
from backends.store.engine import ENVIRONMENT_ERRORS, copy, open_engine
from backends.store.migrate import MIGRATIONS, head, migrate
from backends.store.rows import seen_rows
from schemas import tables as t


def test_every_table_distributes_by_organisation() -> None:
    leading = {table.name: next(iter(table.primary_key)).name for table in t.metadata.sorted_tables}
    assert {name for name, column in leading.items() if column != "organisation_id"} == t.INSTALLATION_TABLES


def test_the_migrations_make_the_tables_that_the_code_describes(store_url: str) -> None:
    engine = open_engine(store_url)
    with engine.connect() as connection:
        options = {"compare_type": engine.dialect.name == "postgresql", "include_object": _described}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), t.metadata) == []
    engine.dispose()


def test_a_new_file_is_what_all_migrations_one_by_one_would_have_made(tmp_path: Path) -> None:
    dumps = []
    for name, first in (("new", None), ("old", "0001")):
        engine = open_engine(f"sqlite:///{tmp_path}/{name}.db")
        if first is not None:
            upgrade(engine, first)
        migrate(engine)
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            dumps.append([" ".join(statement.split()) for statement in driver.iterdump()])
        engine.dispose()
    assert sorted(dumps[0]) == sorted(dumps[1])


def test_the_last_migration_is_the_one_that_alembic_comes_to() -> None:
    assert head() == ScriptDirectory(str(MIGRATIONS)).get_current_head()


def test_ids_of_an_older_release_are_known_after_its_migration(store_url: str) -> None:
    organisation, event, day = "c0ffee00-0000-4000-8000-00000000abcd", "018f3b2a-0000-7000-8000-00000000abcd", 20_000
    engine = open_engine(store_url)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
        else:
            for table in [*t.metadata.sorted_tables, "alembic_version"]:
                connection.exec_driver_sql(f"DROP TABLE {table}")
    upgrade(engine, "0005")
    create_day_partitions(engine, [day])
    kept = event if engine.dialect.name == "postgresql" else event.replace("-", "")
    with engine.begin() as connection:
        insert = "INSERT INTO seen (organisation_id, day, event_id) VALUES (:o, :d, :e)"
        connection.execute(sa.text(insert), {"o": organisation, "d": day, "e": kept})
    migrate(engine)
    with Counting(engine).transaction() as transaction:
        assert transaction.seen_on_any_day([(organisation, event)]) == {(organisation, event)}
        assert transaction.add_seen({(organisation, day): [event]}) == {(organisation, event)}
    engine.dispose()


def upgrade(engine: sa.Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


def _described(item: object, name: str | None, kind: str, *_: object) -> bool:
    """All but the partitions of `seen`, which are made as days come."""
    return not (kind == "table" and name is not None and name.startswith("seen_"))


def test_copied_ids_are_read_back_and_what_fails_is_told_as_of_any_statement(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    organisation, names = str(uuid.uuid4()), ("organisation_id", "day", "event_id")
    ids = {(organisation, day): sorted(str(uuid.uuid4()) for _ in range(3)) for day in (20_000, 20_001)}
    create_day_partitions(engine, [20_000, 20_001])

    def enter(
        given: dict[tuple[str, int], list[str]], before: Callable[[sa.Connection], object] = lambda _: None
    ) -> None:
        with engine.begin() as connection:
            before(connection)
            copy(connection, t.seen, names, seen_rows(given))

    def end(connection: sa.Connection) -> None:
        backend = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar()
        with engine.begin() as other:
            other.execute(sa.text("SELECT pg_terminate_backend(:backend, 5000)"), {"backend": backend})

    enter(ids)
    with engine.begin() as connection:
        found = connection.execute(
            sa.select(*(t.seen.c[name] for name in names)).order_by(t.seen.c.day, t.seen.c.event_id)
        )
        assert [tuple(row) for row in found] == [(*of, event) for of, events in ids.items() for event in events]
    with pytest.raises(sa.exc.IntegrityError):
        enter({(organisation, 20_000): ids[organisation, 20_000][1:]})
    with pytest.raises(sa.exc.IntegrityError):
        enter({(organisation, 12_345): [str(uuid.uuid4())]})
    with pytest.raises(ENVIRONMENT_ERRORS):
        enter({(organisation, 20_000): [str(uuid.uuid4())]}, before=end)
    engine.dispose()
