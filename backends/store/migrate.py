"""Brings the store's tables to this release's. Migrations lie in schemas/migrations/."""

import time
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import schemas

DAY_MS = 86_400_000
DAYS_AHEAD = 8
DAYS_BEHIND = 15


def migrate(engine: sa.Engine) -> None:
    """Runs what is missing, each migration in a transaction. Twice is the same as once, also at the same time."""
    config = Config()
    config.set_main_option("script_location", str(Path(schemas.__file__).parent / "migrations"))
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
    today = time.time_ns() // 1_000_000 // DAY_MS
    create_day_partitions(engine, range(today - DAYS_BEHIND, today + DAYS_AHEAD + 1))


def create_day_partitions(engine: sa.Engine, days: Iterable[int]) -> None:
    """PostgreSQL keeps `seen` in a partition a day, so that forgetting a day is dropping a table. SQLite needs none."""
    if engine.dialect.name != "postgresql":
        return
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7305042)"))
        for day in sorted(days):
            # Day numbers are integers of ours, never a client's text.
            connection.exec_driver_sql(
                f"CREATE TABLE IF NOT EXISTS seen_{day} PARTITION OF seen FOR VALUES FROM ({day}) TO ({day + 1})"
            )
