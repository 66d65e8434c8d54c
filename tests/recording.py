"""Recorded topics: files of an envelope a line, replayed through a worker into a store, and what the store then holds.

`python -m tests.recording NAME` writes the snapshot of a recording anew, after a change that is meant to change it.
"""

import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson
import sqlalchemy as sa

from backends.log import open_admin, open_producer
from backends.store.catalog import Catalog, Flow
from backends.store.counting import Counting
from backends.store.engine import open_engine
from backends.store.migrate import migrate
from schemas import records
from schemas.ids import NIL, partition_of
from schemas.topics import Topics
from tests.snapshot import snapshot
from tests.working import until, working

FOLDER = Path(__file__).with_name("recordings")
NAMES = sorted(path.stem for path in FOLDER.glob("*.ndjson"))
PARTITIONS = 4


class Owner(msgspec.Struct):
    """An organisation of the recordings' catalogue with its flows."""

    organisation: str
    name: str
    flows: list[Flow]


def lines(name: str) -> list[bytes]:
    return (FOLDER / f"{name}.ndjson").read_bytes().splitlines()


def expected(name: str) -> Any:
    return orjson.loads((FOLDER / f"{name}.expected.json").read_bytes())


def prepare(engine: sa.Engine) -> None:
    """Makes the organisations and flows that the recordings are about."""
    catalog = Catalog(engine)
    for owner in msgspec.json.decode((FOLDER / "catalogue.json").read_bytes(), type=list[Owner]):
        catalog.create_organisation(owner.name, owner.organisation)
        for flow in owner.flows:
            catalog.import_flow(flow)


class Replay:
    """A recording on topics of its own, counted by a worker."""

    def __init__(self, log_url: str, engine: sa.Engine, name: str) -> None:
        self._log_url = log_url
        self._engine = engine
        self._lines = lines(name)
        self._events = sum(_events_of(line) for line in self._lines)
        self._appended = 0
        self.topics = Topics(f"r{uuid.uuid4().hex}")
        with closing(open_admin(log_url)) as admin:
            for topic in self.topics.all():
                admin.create_topic(topic, PARTITIONS, 1)

    def append(self) -> None:
        """Writes the recording to the topics, once more where it is there already; a line a record."""
        producer = open_producer(self._log_url)
        try:
            for topic in self.topics.all():
                producer.partitions(topic)
            written = [producer.produce(*self._place(line), line) for line in self._lines]
            for done in written:
                done.result(20)
        finally:
            producer.close(5)
        self._appended += self._events

    def count(self, group: str = "g") -> None:
        """Runs a worker of this group until all that was appended is counted and the worker has caught up."""
        counting = Counting(self._engine)
        with working(self._engine, self._log_url, self.topics.all(), f"{group}-{self.topics.prefix}") as worker:
            until(lambda: counting.ledger().get("consumed", 0) >= self._appended and worker.caught_up())

    def store(self) -> Any:
        """The whole store, with the topics under their usual names."""
        text = orjson.dumps(snapshot(self._engine)).replace(self.topics.prefix.encode(), b"zenstep")
        return orjson.loads(text)

    def _place(self, line: bytes) -> tuple[str, int]:
        try:
            decoded = records.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self.topics.events, partition_of(NIL, PARTITIONS)
        topic = self.topics.events if isinstance(decoded, records.Envelope) else self.topics.heartbeats
        return topic, partition_of(decoded.org, PARTITIONS)


def _events_of(line: bytes) -> int:
    try:
        decoded = records.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 1
    readable = isinstance(decoded, records.Envelope) and decoded.v == records.VERSION
    return len(decoded.events) if readable else 1


@contextmanager
def scratch() -> Iterator[tuple[str, sa.Engine]]:
    """A log and a store on SQLite, for making a snapshot."""
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{folder}/store.db")
        migrate(engine)
        yield f"sqlite:///{folder}/log.db", engine
        engine.dispose()


def write_expected(name: str, say: Callable[[str], object] = print) -> None:
    with scratch() as (log_url, engine):
        prepare(engine)
        replay = Replay(log_url, engine, name)
        replay.append()
        replay.count()
        tables = replay.store()
    parts = (
        f'"{table}": [\n' + ",\n".join(orjson.dumps(row).decode() for row in rows) + "\n]"
        for table, rows in tables.items()
    )
    (FOLDER / f"{name}.expected.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")
    say(f"{name}: what the store holds after {len(lines(name))} lines is written")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NAMES:
        write_expected(chosen)
