"""Brings the store's tables to this release's. Migrations lie in schemas/migrations/."""

import time
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import schemas
from backends.store.days import DAY_MS, DAYS_AHEAD, DAYS_BEHIND, create_day_partitions


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
