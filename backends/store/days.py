"""The days of `seen`: on PostgreSQL each is a table of its own."""

from collections.abc import Iterable

import sqlalchemy as sa

DAY_MS = 86_400_000
DAYS_AHEAD = 8
DAYS_BEHIND = 15


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
