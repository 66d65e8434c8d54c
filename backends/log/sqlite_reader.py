"""Reads ranges of the SQLite log, in no group."""

import sqlite3
from collections.abc import Sequence

from backends.log.protocol import LogUnavailable, Record, TopicPartition, UnknownTopic
from backends.log.sqlite import bounds, connect, read


class SqliteLogReader:
    """See Reader."""

    def __init__(self, path: str) -> None:
        self._connection = connect(path)

    def partitions(self, topic: str) -> int:
        row = self._one("SELECT partitions FROM topics WHERE topic = ?", topic)
        if row is None:
            raise UnknownTopic(f"there is no topic {topic}: run zenstep topics create")
        return int(row[0])

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return bounds(self._connection, partitions, "first_offset")

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return bounds(self._connection, partitions, "next_offset")

    def offset_at(self, partition: TopicPartition, epoch_ms: int) -> int:
        query = "SELECT min(offset) FROM records WHERE topic = ? AND partition = ? AND timestamp >= ?"
        row = self._one(query, *partition, epoch_ms)
        if row is None or row[0] is None:
            return self.end_offsets([partition])[partition]
        return int(row[0])

    def read(self, partition: TopicPartition, offset: int, max_records: int) -> list[Record]:
        return read(self._connection, {partition: offset}, max_records)[0]

    def kept_ms(self, topic: str) -> int | None:
        """Nothing removes records by itself."""
        self.partitions(topic)
        return None

    def close(self) -> None:
        self._connection.close()

    def _one(self, query: str, *values: object) -> tuple[int, ...] | None:
        try:
            row: tuple[int, ...] | None = self._connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise LogUnavailable(str(error)) from error
        return row
