"""Brings the store's tables to this release's. Migrations lie in schemas/migrations/."""

import time
from pathlib import Path

import sqlalchemy as sa

import schemas
from backends.store.days import DAY_MS, DAYS_AHEAD, DAYS_BEHIND, create_day_partitions
from schemas.tables import metadata

MIGRATIONS = Path(schemas.__file__).parent / "migrations"

_VERSION = sa.Table(  # as Alembic makes it
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def migrate(engine: sa.Engine) -> None:
    """Runs what is missing, each migration in a transaction. Twice is the same as once, also at the same time."""
    # Alembic's import is a tenth of a start, so it waits for a store that it has something to do in.
    if not _made(engine) and not _is_current(engine):
        _upgrade(engine)
    today = time.time_ns() // 1_000_000 // DAY_MS
    create_day_partitions(engine, range(today - DAYS_BEHIND, today + DAYS_AHEAD + 1))


def head() -> str:
    """The last migration, by which the files' names begin."""
    return max(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _made(engine: sa.Engine) -> bool:
    """On SQLite in a file without tables, what all migrations come to: True where it was. Theirs is the same file."""
    if engine.dialect.name != "sqlite":
        return False
    with engine.begin() as connection:
        if connection.scalar(sa.text("SELECT count(*) FROM sqlite_master")):
            return False
        metadata.create_all(connection, checkfirst=False)
        _VERSION.create(connection)
        connection.execute(_VERSION.insert().values(version_num=head()))
    return True


def _is_current(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table(_VERSION.name):
            return False
        return list(connection.scalars(sa.select(_VERSION.c.version_num))) == [head()]


def _upgrade(engine: sa.Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            # Held to the end of this connection, so that two starting at once do not both create the tables.
            connection.execute(sa.text("SELECT pg_advisory_lock(7305041)"))
            connection.commit()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
            connection.commit()
        finally:
            connection.rollback()
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_unlock(7305041)"))
                connection.commit()
