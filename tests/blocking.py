"""Holds what a worker needs in PostgreSQL, so that it stands still at a known statement."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.working import until

ORGANISATIONS = "SELECT FROM organisations FOR UPDATE"  # in the middle of a batch's transaction
FLOWS = "LOCK TABLE flows IN ACCESS EXCLUSIVE MODE"  # before it


class Held:
    """What is held, until `let_go`."""

    def __init__(self, url: str, statement: str) -> None:
        self._url = url
        self._connection = psycopg.connect(url)
        self._connection.execute(statement)

    def reached(self) -> None:
        """Returns when somebody waits for it."""
        until(lambda: waiting(self._url))

    def let_go(self) -> None:
        self._connection.close()


def waiting(url: str) -> int:
    """How many sessions of this database wait for a lock."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
    return int(row[0]) if row else 0


@contextmanager
def holding(url: str, statement: str) -> Iterator[Held]:
    held = Held(url, statement)
    try:
        yield held
    finally:
        held.let_go()
