"""Tables beside the live ones: what workers write, written again from the topics and put in place in one transaction.

A worker's code runs unchanged on `engine`: what workers write is found beside, the catalogue in the live store. So the
offsets beside say how far a rebuild is, each record counts exactly once in it, and a rebuild that was killed goes on
where it was.
"""

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import sqlalchemy as sa

from backends.store.engine import read_only
from schemas import tables as t

KEPT = {
    *("organisations", "organisation_limits", "organisation_privacy", "snippet_keys", "members", "flows", "steps"),
    *("accepted", "forgotten"),
}
"""A rebuild leaves these as they are: they are not made of the topics. All others are written anew.

`horizon` and `pruned` are empty in what is rebuilt: it has every id and row that the topics have, also what retention
had removed.
"""

WRITTEN = [table for table in t.metadata.sorted_tables if table.name not in KEPT]

_STATE = "rebuild_state"


class RebuildError(Exception):
    """The rebuild cannot go on; the message is for the operator. What stands beside is kept."""


class Occupied(Exception):
    """Somebody uses the tables that were to be swapped; trying again later may succeed."""


class Position(NamedTuple):
    """Where a partition stands, and which topic of that name is meant, where it is known."""

    offset: int
    identity: str | None


class Tables:
    """The tables of one schema, or of one attached SQLite file."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self._metadata = sa.MetaData()
        self._by_name = {
            str(table.name): table.to_metadata(self._metadata, schema) for table in t.metadata.tables.values()
        }
        self.state = sa.Table(
            _STATE,
            self._metadata,
            sa.Column("name", sa.String(32), primary_key=True),
            sa.Column("value", sa.String(255), nullable=False),
            schema=schema,
        )

    def __getitem__(self, table: sa.Table) -> sa.Table:
        return self._by_name[str(table.name)]

    def written(self) -> list[sa.Table]:
        return [self[table] for table in WRITTEN]


class Held(ABC):
    """The live store with its workers' commits held back, inside one transaction that sees both sets of tables."""

    def __init__(self, connection: sa.Connection, live: Tables, beside: Tables) -> None:
        self.connection = connection
        self.live = live
        self.beside = beside

    def positions(self) -> dict[tuple[str, int], Position]:
        """Where the live partitions stand. Also keeps the transaction from being taken for an idle one."""
        return _positions(self.connection, self.live)

    def failing(self) -> int:
        """How many more events have failed in the rebuild than had for the workers: then the fault is in the tables."""
        live, beside = (
            self.connection.execute(sa.select(sa.func.sum(c.events)).where(c.outcome == "rejected:poison")).scalar()
            for c in (self.live[t.ledger].c, self.beside[t.ledger].c)
        )
        return int(beside or 0) - int(live or 0)

    def conditions(self) -> dict[str, str]:
        """What must stay as it was when a rebuild began: the tables' release, and who is to be forgotten."""
        return _conditions(self.connection, self.live)

    @abstractmethod
    def swap(self) -> None:
        """Puts the tables beside in place of the live ones; the commit makes it so. Raises Occupied, RebuildError."""

    def _carry_over(self) -> None:
        """What the live tables know and the topics do not."""
        new, old = self.beside[t.rejected], self.live[t.rejected]
        same = [new.c[column.name] == old.c[column.name] for column in t.rejected.primary_key]
        marked = new.update().where(*same, old.c.replayed_at.is_not(None))
        self.connection.execute(marked.values(replayed_at=old.c.replayed_at))
        new, old = self.beside[t.offsets], self.live[t.offsets]
        # The same records are counted on both sides, so what readers were promised holds for the rebuilt tables too.
        same = [new.c[name] == old.c[name] for name in ("topic", "partition", "next_offset")]
        through = sa.case(
            (old.c.processed_through > new.c.processed_through, old.c.processed_through),
            else_=new.c.processed_through,
        )
        identity = sa.func.coalesce(new.c.identity, old.c.identity)
        self.connection.execute(new.update().where(*same).values(processed_through=through, identity=identity))


class Beside(ABC):
    """Blocking. Every method but `alone` is for the one that is alone. Raises SQLAlchemy's errors."""

    def __init__(self, control: sa.Engine, live: str, beside: str) -> None:
        self.control = control
        self.live = Tables(live)
        self.beside = Tables(beside)

    @property
    @abstractmethod
    def engine(self) -> sa.Engine:
        """What is written through it lands beside."""

    @abstractmethod
    def alone(self) -> AbstractContextManager[None]:
        """Raises RebuildError where another rebuild of this store runs."""

    @abstractmethod
    def check(self) -> None:
        """Raises RebuildError where a swap would be refused or would leave something behind."""

    @abstractmethod
    def create(self, conditions: Mapping[str, str]) -> None:
        """Makes the tables, empty, all or none."""

    @abstractmethod
    def throw_away(self) -> None:
        """Drops what stands beside, and what a swap left behind."""

    @abstractmethod
    def held(self) -> AbstractContextManager[Held]:
        """Commits at the end, rolls back on an exception. Raises Occupied."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[sa.Connection]:
        """Both sets of tables as they are now, whatever is written meanwhile."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def prepare(self) -> None:
        """Before each batch; what it needs of the catalogue is made sure of."""

    @abstractmethod
    def refresh(self) -> None:
        """After the last batch before a swap: tells the database how much there is."""

    def conditions(self) -> dict[str, str] | None:
        """What the rebuild that stands beside was begun under; None where none does."""
        with read_only(self.control).begin() as connection:
            if not sa.inspect(connection).has_table(_STATE, self.beside.schema):
                return None
            return {row.name: row.value for row in connection.execute(sa.select(self.beside.state))}

    def conditions_now(self) -> dict[str, str]:
        """See Held.conditions."""
        with read_only(self.control).begin() as connection:
            return _conditions(connection, self.live)

    def live_positions(self) -> dict[tuple[str, int], Position]:
        with read_only(self.control).begin() as connection:
            return _positions(connection, self.live)

    def positions(self) -> dict[tuple[str, int], Position]:
        """Where the rebuild stands."""
        with read_only(self.control).begin() as connection:
            return _positions(connection, self.beside)

    def move(self, positions: Mapping[tuple[str, int], Position]) -> None:
        """Enters partitions, or puts them elsewhere without counting what lies between."""
        o = t.offsets
        with self.engine.begin() as connection:
            for (topic, partition), at in sorted(positions.items()):
                where = (o.c.topic == topic, o.c.partition == partition)
                values: dict[str, Any] = {"next_offset": at.offset, "identity": at.identity}
                if connection.execute(o.update().where(*where).values(values)).rowcount == 0:
                    row = {"topic": topic, "partition": partition, "processed_through": 0}
                    connection.execute(o.insert().values(row | values))

    def _write_state(self, connection: sa.Connection, conditions: Mapping[str, str]) -> None:
        state = dict(conditions) | {"begun_at": str(time.time_ns() // 1_000_000)}
        rows = [{"name": name, "value": value} for name, value in state.items()]
        connection.execute(self.beside.state.insert(), rows)


def _positions(connection: sa.Connection, tables: Tables) -> dict[tuple[str, int], Position]:
    o = tables[t.offsets].c
    rows: Iterable[Any] = connection.execute(sa.select(o.topic, o.partition, o.next_offset, o.identity))
    return {(row.topic, row.partition): Position(row.next_offset, row.identity) for row in rows}


def _conditions(connection: sa.Connection, live: Tables) -> dict[str, str]:
    revision = sa.table("alembic_version", sa.column("version_num"), schema=live.schema)
    forgotten = live[t.forgotten]
    digest = hashlib.sha256()
    for row in connection.execute(sa.select(forgotten).order_by(*forgotten.primary_key)):
        digest.update(repr(tuple(row)).encode())
    return {
        "tables": str(connection.execute(sa.select(revision.c.version_num)).scalar()),
        "forgotten": digest.hexdigest(),
    }


def open_beside(url: str) -> Beside:
    """Raises ValueError for an address that is neither kind, RebuildError for a store without tables."""
    if url.startswith("sqlite:"):
        from backends.store.rebuild_sqlite import SqliteBeside

        return SqliteBeside(url)
    from backends.store.rebuild_postgres import PostgresBeside

    return PostgresBeside(url)
