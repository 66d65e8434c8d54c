"""The log on one machine: the same semantics as Kafka's in one SQLite file, for any number of processes.

An append is acknowledged after its transaction is fsynced; those that arrive while one is written share the next.
"""

import queue
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from backends.log.protocol import (
    LogError,
    LogUnavailable,
    OffsetOutOfRange,
    Record,
    RecordTooLarge,
    TopicPartition,
    UnknownTopic,
)

MAX_RECORD_BYTES = 1024 * 1024 - 1024
MAX_BUFFERED_BYTES = 32 * 1024 * 1024
BUSY_SECONDS = 10.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (topic TEXT PRIMARY KEY, partitions INTEGER NOT NULL, identity TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ends (
    topic TEXT, partition INTEGER, next_offset INTEGER NOT NULL, timestamp INTEGER NOT NULL,
    first_offset INTEGER NOT NULL, PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    topic TEXT, partition INTEGER, offset INTEGER, timestamp INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (topic, partition, offset)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members ("group" TEXT, member TEXT, alive_at REAL NOT NULL, PRIMARY KEY ("group", member))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owners (
    "group" TEXT, topic TEXT, partition INTEGER, member TEXT NOT NULL, PRIMARY KEY ("group", topic, partition))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS commits (
    "group" TEXT, topic TEXT, partition INTEGER, next_offset INTEGER NOT NULL, PRIMARY KEY ("group", topic, partition))
    WITHOUT ROWID;
"""
_TABLES = set(re.findall(r"EXISTS (\w+)", _SCHEMA))


def connect(path: str) -> sqlite3.Connection:
    """A connection that any thread may use, one at a time. Raises LogUnavailable."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _make_tables(connection)
        _add_identities(connection)
    except (sqlite3.Error, OSError) as error:
        raise LogUnavailable(f"cannot open {path}: {error}") from error
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    """In one transaction, since each waits for the disk; and in none where all are there."""
    if not {row[0] for row in connection.execute("SELECT name FROM sqlite_master")} >= _TABLES:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT")


def _add_identities(connection: sqlite3.Connection) -> None:
    """For a file of a release whose topics had none."""
    if any(column[1] == "identity" for column in connection.execute("PRAGMA table_info(topics)")):
        return
    with transaction(connection) as c:
        if not any(column[1] == "identity" for column in c.execute("PRAGMA table_info(topics)")):
            c.execute("ALTER TABLE topics ADD COLUMN identity TEXT")
            c.execute("UPDATE topics SET identity = lower(hex(randomblob(16)))")


class transaction:
    """Takes the write lock at once, commits at the end, rolls back on an exception. SQLite's errors: LogUnavailable."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise LogUnavailable(str(error)) from error
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                self._connection.execute("COMMIT")
                return
            except sqlite3.Error as failed:
                error = failed
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise LogUnavailable(str(error)) from error


class SqliteLogAdmin:
    """Makes and describes topics."""

    def __init__(self, path: str) -> None:
        self._connection = connect(path)

    def create_topic(self, topic: str, partitions: int, replication: int) -> bool:
        """See Admin. There is one copy, whatever `replication` says."""
        with transaction(self._connection) as c:
            if c.execute("SELECT 1 FROM topics WHERE topic = ?", (topic,)).fetchone():
                return False
            c.execute("INSERT INTO topics VALUES (?, ?, ?)", (topic, partitions, uuid.uuid4().hex))
            c.executemany("INSERT INTO ends VALUES (?, ?, 0, 0, 0)", [(topic, p) for p in range(partitions)])
        return True

    def add_partitions(self, topic: str, total: int) -> bool:
        with transaction(self._connection) as c:
            row = c.execute("SELECT partitions FROM topics WHERE topic = ?", (topic,)).fetchone()
            if row is None:
                raise UnknownTopic(f"there is no topic {topic}: run zenstep topics create")
            if row[0] > total:
                raise LogError(f"{topic} has {row[0]} partitions already, and none can be taken away")
            c.execute("UPDATE topics SET partitions = ? WHERE topic = ?", (total, topic))
            c.executemany("INSERT INTO ends VALUES (?, ?, 0, 0, 0)", [(topic, p) for p in range(row[0], total)])
        return bool(row[0] < total)

    def topics(self) -> dict[str, int]:
        return dict(self._connection.execute("SELECT topic, partitions FROM topics").fetchall())

    def identities(self) -> dict[str, str]:
        return identities(self._connection)

    def delete_before(self, partition: TopicPartition, offset: int) -> None:
        """Retention: forgets the records below `offset`; reading them raises OffsetOutOfRange from then on."""
        with transaction(self._connection) as c:
            c.execute("DELETE FROM records WHERE topic = ? AND partition = ? AND offset < ?", (*partition, offset))
            c.execute(
                "UPDATE ends SET first_offset = max(first_offset, min(?, next_offset)) "
                "WHERE topic = ? AND partition = ?",
                (offset, *partition),
            )

    def close(self) -> None:
        self._connection.close()


class _Append(NamedTuple):
    topic: str
    partition: int
    value: bytes
    done: "Future[int]"


class SqliteLogProducer:
    """See Producer. One thread writes; what arrives while it waits for the disk goes into its next transaction."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pending: queue.SimpleQueue[_Append | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._buffered = 0
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._thread.start()

    def attach(self) -> None:
        """A disk is waited for on a thread."""

    def partitions(self, topic: str) -> int:
        connection = connect(self._path)
        try:
            row = connection.execute("SELECT partitions FROM topics WHERE topic = ?", (topic,)).fetchone()
        except sqlite3.Error as error:
            raise LogUnavailable(str(error)) from error
        finally:
            connection.close()
        if row is None:
            raise UnknownTopic(f"there is no topic {topic}: run zenstep topics create")
        return int(row[0])

    def max_record_bytes(self, topic: str) -> int:
        self.partitions(topic)
        return MAX_RECORD_BYTES

    def ping(self, timeout: float) -> None:
        connect(self._path).close()

    def produce(self, topic: str, partition: int, value: bytes) -> "Future[int]":
        done: Future[int] = Future()
        if len(value) > MAX_RECORD_BYTES:
            done.set_exception(RecordTooLarge(f"{len(value)} bytes"))
            return done
        with self._lock:
            room = not self._closed and self._buffered + len(value) <= MAX_BUFFERED_BYTES
            if room:
                self._buffered += len(value)
                self._pending.put(_Append(topic, partition, value, done))
        if not room:
            done.set_exception(LogUnavailable("closed" if self._closed else "the buffer is full"))
        return done

    def produce_all(self, topic: str, records: Sequence[tuple[int, bytes]]) -> "list[Future[int]]":
        return [self.produce(topic, partition, value) for partition, value in records]

    def close(self, timeout: float) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._pending.put(None)
        self._thread.join(timeout)

    def _write(self) -> None:
        connection: sqlite3.Connection | None = None
        ending = False
        while not ending:
            batch = [self._pending.get()]
            while not self._pending.empty():
                batch.append(self._pending.get())
            ending = None in batch
            appends = [append for append in batch if append is not None]
            try:
                connection = connection or connect(self._path)
                with transaction(connection) as c:
                    outcomes = [_append(c, append) for append in appends]
            except LogUnavailable as error:
                outcomes = [error] * len(appends)
            with self._lock:
                self._buffered -= sum(len(append.value) for append in appends)
            for append, outcome in zip(appends, outcomes, strict=True):
                if isinstance(outcome, LogError):
                    append.done.set_exception(outcome)
                else:
                    append.done.set_result(outcome)
        if connection is not None:
            connection.close()


def _append(c: sqlite3.Connection, append: _Append) -> int | LogError:
    now = time.time_ns() // 1_000_000
    row = c.execute(
        "UPDATE ends SET next_offset = next_offset + 1, timestamp = max(timestamp, ?) "
        "WHERE topic = ? AND partition = ? RETURNING next_offset - 1, timestamp",
        (now, append.topic, append.partition),
    ).fetchone()
    if row is None:
        return UnknownTopic(f"there is no {append.topic}[{append.partition}]")
    c.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", (append.topic, append.partition, *row, append.value))
    return int(row[0])


def read(
    c: sqlite3.Connection, positions: Mapping[TopicPartition, int], max_records: int
) -> tuple[list[Record], dict[TopicPartition, int]]:
    """Records from these offsets on, and where each partition then stands. Raises OffsetOutOfRange, LogUnavailable."""
    found: list[Record] = []
    following = dict(positions)
    try:
        for tp, offset in positions.items():
            rows = c.execute(
                "SELECT topic, partition, offset, timestamp, value FROM records "
                "WHERE topic = ? AND partition = ? AND offset >= ? ORDER BY offset LIMIT ?",
                (*tp, offset, max_records - len(found)),
            ).fetchall()
            if rows:
                following[tp] = rows[-1][2] + 1
            first = rows[0][2] if rows else offset
            if first != offset or not rows:
                _check_range(c, tp, offset)
            found.extend(Record(*row) for row in rows)
            if len(found) >= max_records:
                break
    except sqlite3.Error as error:
        raise LogUnavailable(str(error)) from error
    return found, following


def _check_range(c: sqlite3.Connection, tp: TopicPartition, offset: int) -> None:
    query = "SELECT first_offset, next_offset FROM ends WHERE topic = ? AND partition = ?"
    row = c.execute(query, tp).fetchone()
    if row is None or not row[0] <= offset <= row[1]:
        raise OffsetOutOfRange(f"{tp.topic}[{tp.partition}] has no offset {offset}")


def identities(c: sqlite3.Connection) -> dict[str, str]:
    """Of every topic. Raises LogUnavailable."""
    try:
        return dict(c.execute("SELECT topic, identity FROM topics").fetchall())
    except sqlite3.Error as error:
        raise LogUnavailable(str(error)) from error


def bounds(c: sqlite3.Connection, partitions: Sequence[TopicPartition], column: str) -> dict[TopicPartition, int]:
    """`first_offset` or `next_offset` of each partition."""
    query = {
        "first_offset": "SELECT first_offset FROM ends WHERE topic = ? AND partition = ?",
        "next_offset": "SELECT next_offset FROM ends WHERE topic = ? AND partition = ?",
    }[column]
    try:
        return {tp: int((c.execute(query, tp).fetchone() or (0,))[0]) for tp in partitions}
    except sqlite3.Error as error:
        raise LogUnavailable(str(error)) from error
