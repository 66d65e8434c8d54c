"""Where each partition stands, and of which topic: what a worker is told when it is given partitions, and what an
operator decides where an offset and the log do not fit.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import sqlalchemy as sa

from backends.store.engine import upsert
from schemas import tables as t

Partition = tuple[str, int]
MAX_TOPIC = 255  # characters, of the tables' columns


class AnotherTopic(Exception):
    """The offsets are of a topic that was removed, and one of the same name has been made since."""

    def __init__(self, topic: str, stored: str, found: str) -> None:
        super().__init__(f"{topic}: {stored} and {found}")
        self.topic = topic
        self.stored = stored
        self.found = found


class Standing(NamedTuple):
    """A partition as the store has it. `identity` is None until a worker has asked the log for it."""

    topic: str
    partition: int
    next_offset: int
    processed_through: int
    identity: str | None


class Offsets:
    """Each call is one transaction. Raises SQLAlchemy's errors where the store is away."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def of(self, topics: Iterable[str]) -> list[Standing]:
        """Of every partition that was ever read, in order."""
        with self._engine.begin() as connection:
            return _standings(connection, topics)

    def begin(self, start: Mapping[Partition, int], identities: Mapping[str, str]) -> dict[Partition, int]:
        """Where to go on in each of these partitions. One never read before begins at the offset given for it.

        Offsets without an identity are the topic's that is there now. Raises AnotherTopic where they are another's.
        """
        o = t.offsets.c
        topics = {topic for topic, _ in start}
        with self._engine.begin() as connection:
            for standing in _standings(connection, topics):
                found = identities.get(standing.topic)
                if standing.identity is not None and found is not None and standing.identity != found:
                    raise AnotherTopic(standing.topic, standing.identity, found)
            for (topic, partition), offset in sorted(start.items()):
                identity = identities.get(topic)
                insert = upsert(connection, t.offsets).values(_row(topic, partition, offset, identity))
                connection.execute(insert.on_conflict_do_nothing())
                unknown = (o.topic == topic, o.partition == partition, o.identity.is_(None))
                connection.execute(t.offsets.update().where(*unknown).values(identity=identity))
            return {s[:2]: s.next_offset for s in _standings(connection, topics) if s[:2] in start}

    def enter(self, topic: str, partitions: Iterable[int]) -> None:
        """Partitions that are about to be: readers then promise nothing beyond them before a worker has them."""
        rows = [_row(topic, partition, 0, None) for partition in partitions]
        with self._engine.begin() as connection:
            for row in rows:
                connection.execute(upsert(connection, t.offsets).values(row).on_conflict_do_nothing())

    def move(self, topic: str, partition: int, expected: int, to: int) -> bool:
        """False where the offset is no longer as expected: a worker has gone on."""
        o = t.offsets.c
        where = (o.topic == topic, o.partition == partition, o.next_offset == expected)
        with self._engine.begin() as connection:
            return connection.execute(t.offsets.update().where(*where).values(next_offset=to)).rowcount == 1

    def adopt(self, topic: str, beginnings: Mapping[int, int], identity: str) -> str | None:
        """Reads the topic that is there now from these offsets on, by partition.

        What was accounted for under the old one stays, under the name that is returned, so that no record of the new
        one is taken for one of the old. None, and nothing is done, where the offsets are of this topic already.
        """
        with self._engine.begin() as connection:
            standings = _standings(connection, [topic], lock=True)
            old = {s.identity for s in standings if s.identity is not None} - {identity}
            if not old:
                return None
            name = aside(topic, min(old))
            for table in (t.ledger, t.rejected, t.pruned):
                connection.execute(table.update().where(table.c.topic == topic).values(topic=name))
            connection.execute(t.offsets.delete().where(t.offsets.c.topic == topic))
            rows = [_row(topic, partition, offset, identity) for partition, offset in beginnings.items()]
            connection.execute(t.offsets.insert(), rows)
            return name


def aside(topic: str, identity: str) -> str:
    """The name that a removed topic is accounted for under; no topic can have an @ in its own."""
    ending = f"@{identity[:8]}"
    return topic[: MAX_TOPIC - len(ending)] + ending


def own_name(topic: str) -> str:
    """The name that the topic had while it was there."""
    return topic.partition("@")[0]


def _row(topic: str, partition: int, offset: int, identity: str | None) -> dict[str, object]:
    place = {"topic": topic, "partition": partition, "next_offset": offset}
    return place | {"processed_through": 0, "identity": identity}


def _standings(connection: sa.Connection, topics: Iterable[str], lock: bool = False) -> list[Standing]:
    o = t.offsets.c
    columns = (o.topic, o.partition, o.next_offset, o.processed_through, o.identity)
    query = sa.select(*columns).where(o.topic.in_(sorted(set(topics)))).order_by(o.topic, o.partition)
    return [Standing(*row) for row in connection.execute(query.with_for_update() if lock else query)]
