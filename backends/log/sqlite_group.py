"""Consumer groups over the SQLite log: members hold leases, and an owner lets go before another takes.

Every member works out the same assignment from the sorted list of the living; it takes a partition only when nobody
alive holds it. So a partition never has two members that both believe they own it while both keep their leases.
"""

import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from backends.log.protocol import LogUnavailable, OnAssign, OnRevoke, Record, TopicPartition
from backends.log.sqlite import bounds, connect, identities, read, transaction

SESSION_SECONDS = 10.0
HEARTBEAT_SECONDS = 0.25
IDLE_SECONDS = 0.01


class SqliteLogConsumer:
    """See Consumer."""

    def __init__(
        self,
        path: str,
        group: str,
        topics: Sequence[str],
        on_assign: OnAssign,
        on_revoke: OnRevoke,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connect(path)
        self._group = group
        self._topics = list(topics)
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._clock = clock
        self._member = str(uuid.uuid4())
        self._positions: dict[TopicPartition, int] = {}
        self._unpositioned: list[TopicPartition] = []
        self._checked_at = float("-inf")

    def poll(self, timeout: float, max_records: int) -> list[Record]:
        deadline = time.monotonic() + timeout
        while True:
            assigned = self._take_part()
            found, self._positions = read(self._connection, self._positions, max_records)
            if found:
                # The next poll begins with another partition, so that a busy one does not starve the rest.
                first = next(iter(self._positions))
                self._positions[first] = self._positions.pop(first)
                return found
            left = deadline - time.monotonic()
            if left <= 0 or assigned:
                return []
            time.sleep(min(left, IDLE_SECONDS))

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        rows = [(self._group, *tp, offset) for tp, offset in offsets.items()]
        with suppress(LogUnavailable), transaction(self._connection) as c:
            c.executemany("INSERT OR REPLACE INTO commits VALUES (?, ?, ?, ?)", rows)

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return bounds(self._connection, partitions, "first_offset")

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return bounds(self._connection, partitions, "next_offset")

    def identities(self) -> dict[str, str]:
        found = identities(self._connection)
        return {topic: found[topic] for topic in self._topics if topic in found}

    def keep_alive(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, HEARTBEAT_SECONDS))
            with transaction(self._connection) as c:
                self._renew(c)

    def close(self) -> None:
        with suppress(LogUnavailable), transaction(self._connection) as c:
            c.execute('DELETE FROM owners WHERE "group" = ? AND member = ?', (self._group, self._member))
            c.execute('DELETE FROM members WHERE "group" = ? AND member = ?', (self._group, self._member))
        self._connection.close()

    def _take_part(self) -> bool:
        """Renews the lease, lets go of what is another's, takes what is free; a few times a second at most.

        True where partitions were assigned.
        """
        if time.monotonic() - self._checked_at >= HEARTBEAT_SECONDS:
            with transaction(self._connection) as c:
                self._renew(c)
                mine, owned = self._share(c), self._owned(c)
            held = set(self._positions) | set(self._unpositioned)
            gone = sorted(held - (mine & owned))
            if gone:
                self._revoke(gone)
            with transaction(self._connection) as c:
                taken = self._claim(c, sorted(mine - held))
            self._unpositioned.extend(taken)
            self._checked_at = time.monotonic()
        assigned = bool(self._unpositioned)
        if assigned:
            positions = self._on_assign(list(self._unpositioned))
            self._positions.update({tp: positions[tp] for tp in self._unpositioned})
            self._unpositioned.clear()
        return assigned

    def _revoke(self, partitions: list[TopicPartition]) -> None:
        positioned = [tp for tp in partitions if tp in self._positions]
        if positioned:
            self._on_revoke(positioned)
        for tp in partitions:
            self._positions.pop(tp, None)
            if tp in self._unpositioned:
                self._unpositioned.remove(tp)
        with transaction(self._connection) as c:
            c.executemany(
                'DELETE FROM owners WHERE "group" = ? AND topic = ? AND partition = ? AND member = ?',
                [(self._group, *tp, self._member) for tp in partitions],
            )

    def _renew(self, c: sqlite3.Connection) -> None:
        now = self._clock()
        c.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?)", (self._group, self._member, now))
        dead = 'SELECT member FROM members WHERE "group" = ? AND alive_at < ?'
        over = (self._group, now - SESSION_SECONDS)
        c.execute(f'DELETE FROM owners WHERE "group" = ? AND member IN ({dead})', (self._group, *over))  # noqa: S608
        c.execute('DELETE FROM members WHERE "group" = ? AND alive_at < ?', over)

    def _share(self, c: sqlite3.Connection) -> set[TopicPartition]:
        members = [
            row[0] for row in c.execute('SELECT member FROM members WHERE "group" = ? ORDER BY member', (self._group,))
        ]
        counts = dict(c.execute("SELECT topic, partitions FROM topics").fetchall())
        partitions = [TopicPartition(t, p) for t in self._topics for p in range(counts.get(t, 0))]
        return set(partitions[members.index(self._member) :: len(members)])

    def _owned(self, c: sqlite3.Connection) -> set[TopicPartition]:
        query = 'SELECT topic, partition FROM owners WHERE "group" = ? AND member = ?'
        return {TopicPartition(*row) for row in c.execute(query, (self._group, self._member))}

    def _claim(self, c: sqlite3.Connection, wanted: list[TopicPartition]) -> list[TopicPartition]:
        taken = []
        for tp in wanted:
            row = (self._group, *tp, self._member)
            if c.execute("INSERT OR IGNORE INTO owners VALUES (?, ?, ?, ?)", row).rowcount:
                taken.append(tp)
        return taken
