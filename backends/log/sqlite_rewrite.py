"""Changes what records of the SQLite log hold, where somebody is to be forgotten: their offsets and times stay."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from backends.log.protocol import LogUnavailable, Record, TopicPartition
from backends.log.sqlite import connect, transaction

PAGE = 200


def rewrite(path: str, topic: str, needles: Sequence[bytes], change: Callable[[Record], bytes], dry_run: bool) -> int:
    """Gives each record that holds one of the needles the value that `change` says; how many that changed.

    Raises LogUnavailable.
    """
    changed = 0
    with closing(connect(path)) as connection:
        for page in _pages(connection, topic, needles):
            values = [(change(record), record) for record in page]
            values = [(value, record) for value, record in values if value != record.value]
            changed += len(values)
            if values and not dry_run:
                with transaction(connection) as c:
                    c.executemany(
                        "UPDATE records SET value = ? WHERE topic = ? AND partition = ? AND offset = ?",
                        [(value, record.topic, record.partition, record.offset) for value, record in values],
                    )
    return changed


def _pages(connection: sqlite3.Connection, topic: str, needles: Sequence[bytes]) -> Iterator[list[Record]]:
    holds = " OR ".join(["instr(value, ?)"] * len(needles))
    query = (
        "SELECT topic, partition, offset, timestamp, value FROM records "  # noqa: S608
        f"WHERE topic = ? AND (partition, offset) > (?, ?) AND ({holds}) ORDER BY partition, offset LIMIT {PAGE}"
    )
    after = TopicPartition(topic, -1), -1
    while True:
        try:
            rows = connection.execute(query, (*after[0], after[1], *needles)).fetchall()
        except sqlite3.Error as error:
            raise LogUnavailable(str(error)) from error
        if not rows:
            return
        page = [Record(*row) for row in rows]
        after = TopicPartition(topic, page[-1].partition), page[-1].offset
        yield page
