"""A log and a store with two organisations, lines put into its topics as edges do, a worker, and the commands on it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from backends.log import Record, TopicPartition, open_producer, open_reader
from backends.store.catalog import Catalog, Flow, Step
from backends.store.counting import Counting
from backends.store.engine import open_engine
from cli.main import main
from schemas import records
from schemas import tables as t
from schemas.ids import partition_of
from tests.edges import PARTITIONS, World, make_world
from tests.processes import PROGRAM, environment
from tests.working import Working, until, working
from tests.worlds import NOW, new_id

Line = records.AnyLine | bytes


class Installed:
    """`flow` is published and of the first organisation, `later` is not in the catalogue yet.

    `variables` are put over the environment that commands get.
    """

    def __init__(self, log_url: str, store_url: str) -> None:
        self.world: World = make_world(log_url, store_url)
        self.engine = open_engine(store_url)
        self.organisation, self.other = self.world.organisations
        self.flow = self.new_flow()
        Catalog(self.engine).import_flow(self.flow)
        self.later = self.new_flow()
        self.variables: dict[str, str] = {}

    @property
    def events(self) -> str:
        return self.world.topics.events

    def new_flow(self) -> Flow:
        return Flow(self.organisation, new_id(), "Tour", "tour", [Step(new_id(), 0, "First")], 1)

    def publish(self, flow: Flow) -> None:
        Catalog(self.engine).import_flow(flow)

    def put(self, *lines: Line, topic: str | None = None, organisation: str | None = None) -> None:
        """One record a line, in the partition of an organisation."""
        topic = topic or self.events
        partition = partition_of(organisation or self.organisation, PARTITIONS)
        producer = open_producer(self.world.settings.log_url)
        producer.partitions(topic)
        values = [line if isinstance(line, bytes) else records.encode(line) for line in lines]
        for done in [producer.produce(topic, partition, value) for value in values]:
            done.result(15)
        producer.close(5)

    def records(self, topic: str | None = None) -> list[Record]:
        """Everything that is in a topic now, by partition and offset."""
        topic = topic or self.events
        found: list[Record] = []
        with closing(open_reader(self.world.settings.log_url)) as reader:
            for partition in range(reader.partitions(topic)):
                tp = TopicPartition(topic, partition)
                offset, end = reader.beginning_offsets([tp])[tp], reader.end_offsets([tp])[tp]
                while offset < end:  # at the end Kafka would be waited for
                    part = reader.read(tp, offset, 1000)
                    found += part
                    offset = part[-1].offset + 1
        return found

    def lines(self, topic: str | None = None) -> list[bytes]:
        return [line for record in self.records(topic) for _, line in records.lines(record.value)]

    @contextmanager
    def worker(self) -> Iterator[Working]:
        group = f"g-{self.world.topics.prefix}"
        with working(self.engine, self.world.settings.log_url, self.world.topics.all(), group) as started:
            yield started

    def count(self) -> dict[str, int]:
        """Has a worker count all that is there, and returns the ledger."""
        with self.worker():
            until(self.settled)
        return self.ledger()

    def settled(self) -> bool:
        """Whether everything in the log is accounted for."""
        partitions = [TopicPartition(topic, p) for topic in self.world.topics.all() for p in range(PARTITIONS)]
        with closing(open_reader(self.world.settings.log_url)) as reader:
            ends = reader.end_offsets(partitions)
        with self.engine.connect() as connection:
            o = t.offsets.c
            stored = {
                (row[0], row[1]): row[2] for row in connection.execute(sa.select(o.topic, o.partition, o.next_offset))
            }
        return all(stored.get(tp, 0) == ends[tp] for tp in partitions)

    def ledger(self) -> dict[str, int]:
        return Counting(self.engine).ledger()

    def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key)).mappings()]

    # The commands

    def run(self, *arguments: str, **given: Any) -> Result:
        """In this process."""
        variables = {f"ZENSTEP_{name.upper()}": str(value) for name, value in self.world.environment().items()}
        return CliRunner(catch_exceptions=False).invoke(main, arguments, env=variables | self.variables, **given)

    def __call__(self, *arguments: str, **given: Any) -> str:
        result = self.run(*arguments, **given)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return str(result.stdout)

    def json(self, *arguments: str, **given: Any) -> Any:
        return json.loads(self(*arguments, "--json", **given))

    def refuses(self, *arguments: str, **given: Any) -> str:
        result = self.run(*arguments, **given)
        assert result.exit_code in (1, 2), result.output
        return str(result.stderr.splitlines()[-1].removeprefix("Error: "))

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """As a process of its own."""
        pipe = subprocess.PIPE
        variables = environment(self.world.environment())
        return subprocess.Popen([*PROGRAM, *arguments], env=variables, stdout=pipe, stderr=pipe, text=True)


def install(log_url: str, store_url: str) -> Iterator[Installed]:
    installed = Installed(log_url, store_url)
    yield installed
    installed.engine.dispose()


def sqlite_urls(folder: Path) -> tuple[str, str]:
    return f"sqlite:///{folder}/log.db", f"sqlite:///{folder}/store.db"


def received(days_ago: int = 0) -> int:
    return NOW - days_ago * 86_400_000


@pytest.fixture(params=["kafka and postgres", "sqlite"])
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installed]:
    log_url, store_url = sqlite_urls(tmp_path)
    if request.param != "sqlite":
        log_url = f"kafka://{request.getfixturevalue('kafka_servers')}"
        store_url = request.getfixturevalue("postgres_url")
    yield from install(log_url, store_url)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Installed]:
    yield from install(*sqlite_urls(tmp_path))
