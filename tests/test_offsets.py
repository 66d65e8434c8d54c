"""An offset and a log that do not fit: the worker stops and says so, and an operator decides. On both logs."""

import json
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from backends.log import Producer, TopicPartition, open_admin, open_producer
from backends.store.counting import Counting
from backends.store.engine import open_engine
from backends.store.offsets import Offsets, aside
from backends.store.queries import Queries
from cli.main import main
from service import metrics
from tests.processes import Process
from tests.snapshot import snapshot
from tests.stores import make_store
from tests.tenants import PARTITIONS, Tenants
from tests.topics import make_anew, remove_before
from tests.working import Working, until, working
from workers.stops import OffsetAstray, TopicRecreated


@pytest.fixture
def settings(log_url: str, tmp_path: Path) -> dict[str, str]:
    """Of a store on SQLite: what is of the store alone is tested on both below."""
    url = f"sqlite:///{tmp_path}/store.db"
    make_store(url)
    prefix = f"w{uuid.uuid4().hex}"
    with closing(open_admin(log_url)) as admin:
        for name in ("events", "heartbeats", "refused"):
            admin.create_topic(f"{prefix}.{name}", PARTITIONS, 1)
    return {"log_url": log_url, "store_url": url, "topic_prefix": prefix, "group": f"g{prefix}"}


@pytest.fixture
def topic(settings: dict[str, str]) -> str:
    return settings["topic_prefix"] + ".events"


@pytest.fixture
def engine(settings: dict[str, str]) -> Iterator[sa.Engine]:
    opened = open_engine(settings["store_url"])
    yield opened
    opened.dispose()


@contextmanager
def producing(log_url: str, topic: str) -> Iterator[Producer]:
    opened = open_producer(log_url)
    opened.partitions(topic)
    yield opened
    opened.close(5)


@pytest.fixture
def producer(log_url: str, topic: str) -> Iterator[Producer]:
    with producing(log_url, topic) as opened:
        yield opened


@pytest.fixture
def tenants(engine: sa.Engine, producer: Producer, topic: str) -> Tenants:
    return Tenants(engine, producer, topic)


class Command:
    """`zenstep`, with these settings."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._environment = {f"ZENSTEP_{name.upper()}": value for name, value in settings.items()}

    def run(self, *arguments: str) -> Result:
        return CliRunner(catch_exceptions=False).invoke(main, arguments, env=self._environment)

    def __call__(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.exit_code == 0, done.output
        return str(done.stdout)

    def refuses(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.exit_code == 1, done.output
        return str(done.output)

    def rows(self, topic: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.run("offsets", "list", "--topic", topic, "--json").stdout)[
            "offsets"
        ]
        return rows


@pytest.fixture
def zenstep(settings: dict[str, str]) -> Command:
    return Command(settings)


@contextmanager
def ending(worker: Working) -> Iterator[Working]:
    """One that is to stop by itself, and is stopped where it does not."""
    try:
        yield worker
    finally:
        worker.stop()


def stopped(engine: sa.Engine, log_url: str, topic: str) -> BaseException | None:
    """What stops a worker; a new group each time, so that nobody waits for a member that is gone."""
    with ending(Working(engine, log_url, [topic], f"g.{uuid.uuid4().hex}")) as worker:
        until(worker.ended)
    return worker.error


def busiest(zenstep: Command, topic: str) -> int:
    return int(max(zenstep.rows(topic), key=lambda row: row["end"])["partition"])


def test_retention_that_passes_a_worker_stops_it_and_the_operator_decides(
    log_url: str, topic: str, engine: sa.Engine, tenants: Tenants, zenstep: Command
) -> None:
    tenants.send(1)
    with working(engine, log_url, [topic], "g" + topic):
        until(tenants.counted)
    tenants.send(4)
    [row] = [row for row in zenstep.rows(topic) if row["partition"] == busiest(zenstep, topic)]
    partition, at, end = str(row["partition"]), row["next_offset"], row["end"]
    remove_before(log_url, TopicPartition(topic, row["partition"]), at + 2)
    before = snapshot(engine)
    error = stopped(engine, log_url, topic)
    assert isinstance(error, OffsetAstray)
    assert str(error) == (
        f"{topic}[{partition}] has no offset {at}, which is where the store stands: the log has {at + 2} to {end} "
        f"(2 records are gone uncounted); decide with zenstep offsets move --topic {topic} --partition {partition} "
        "--to earliest, latest or an offset"
    )
    assert metrics.worker_stopped.labels("offset_out_of_range")._value.get() == 1
    ledgers = (before["ledger"], snapshot(engine)["ledger"])
    counted = [[one for one in ledger if one["partition"] == row["partition"]] for ledger in ledgers]
    assert counted[0] == counted[1], "other partitions may have gone on"
    assert str(error) in zenstep.refuses("offsets", "list")
    move = ("offsets", "move", "--topic", topic, "--partition", partition, "--to", "earliest")
    said = f"{topic}[{partition}]: from {at} to {at + 2}, 2 records are skipped, 2 of them gone from the log\n"
    assert zenstep.refuses(*move) == said + "Error: nothing is changed without --yes\n"
    assert {one["partition"]: one["next_offset"] for one in zenstep.rows(topic)}[row["partition"]] == at
    assert zenstep(*move, "--yes") == said
    with working(engine, log_url, [topic], "g" + topic):
        until(lambda: Counting(engine).ledger()["consumed"] == tenants.sent * len(tenants.flows) - 2)
    assert all(row["problem"] is None and row["lag"] == 0 for row in zenstep.rows(topic))


def test_retention_that_passes_a_worker_while_it_runs_stops_it(
    log_url: str, topic: str, engine: sa.Engine, tenants: Tenants, zenstep: Command
) -> None:
    with ending(Working(engine, log_url, [topic], "g" + topic)) as worker:
        tenants.send(1)
        until(tenants.counted)
        # As if it had been far behind: the position is one that retention has passed.
        partition = TopicPartition(topic, busiest(zenstep, topic))
        remove_before(log_url, partition, 1)
        until(lambda: Offsets(engine).move(*partition, worker.worker._next[partition], 0))
        tenants.send(1)
        until(worker.ended)
    assert isinstance(worker.error, OffsetAstray)
    assert f"{topic}[{partition.partition}] has no offset 0" in str(worker.error)


def test_an_offset_beyond_the_logs_end_stops_the_worker_and_counts_nothing(
    log_url: str, topic: str, engine: sa.Engine, tenants: Tenants, zenstep: Command
) -> None:
    tenants.send(1)
    Counting(engine).offsets({TopicPartition(topic, p): 1000 for p in range(PARTITIONS)})
    error = stopped(engine, log_url, topic)
    assert isinstance(error, OffsetAstray)
    assert "has no offset 1000" in str(error)
    assert "beyond its end" in str(error)
    assert Counting(engine).ledger() == {}
    for partition in range(PARTITIONS):
        zenstep("offsets", "move", "--topic", topic, "--partition", str(partition), "--to", "0", "--yes")
    with working(engine, log_url, [topic], "g" + topic):
        until(tenants.counted)
    tenants.check()


def test_the_process_ends_with_one_and_one_clear_line(
    settings: dict[str, str], topic: str, engine: sa.Engine, tmp_path: Path
) -> None:
    Counting(engine).offsets({TopicPartition(topic, 1): 7})
    process = Process("worker", settings, tmp_path / "worker.log")
    assert process.process.wait(60) == 1
    errors = [line for line in map(json.loads, process.log.read_text().splitlines()) if line["level"] == "error"]
    [line] = errors
    assert line["message"].startswith(f"worker stops: {topic}[1] has no offset 7")
    assert line["reason"] == "offset_out_of_range"


def test_offsets_may_be_moved_under_a_worker_at_work(
    log_url: str, topic: str, engine: sa.Engine, tenants: Tenants, zenstep: Command
) -> None:
    """Its next batch is of where it no longer stands, so it is not written, and it asks the store."""
    with working(engine, log_url, [topic], "g" + topic):
        tenants.send()
        until(tenants.counted)
        total = tenants.sent * len(tenants.flows)
        partition = busiest(zenstep, topic)
        [row] = [row for row in zenstep.rows(topic) if row["partition"] == partition]
        told = zenstep("offsets", "move", "--topic", topic, "--partition", str(partition), "--to", "earliest", "--yes")
        assert f"{row['end']} records are read again" in told
        tenants.send(1)
        until(lambda: Counting(engine).ledger()["consumed"] == total + len(tenants.flows) + row["end"])
    ledger = Counting(engine).ledger()
    assert (ledger["counted"], ledger["duplicate"]) == (total + len(tenants.flows), row["end"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--partition", "0", "--to", "5"), "has offsets 0 to 0"),
        (("--partition", "0", "--to", "-1"), "--to is `earliest`, `latest` or an offset"),
        (("--partition", "0", "--to", "middle"), "--to is `earliest`, `latest` or an offset"),
        (("--partition", "1", "--to", "latest"), "no worker has read"),
        (("--partition", "9", "--to", "latest"), "has partitions 0 to 3"),
    ],
)
def test_what_is_no_offset_is_refused(
    topic: str, engine: sa.Engine, zenstep: Command, arguments: tuple[str, ...], problem: str
) -> None:
    Offsets(engine).enter(topic, [0, 9])
    assert problem in zenstep.refuses("offsets", "move", "--topic", topic, *arguments, "--yes")


def test_a_topic_made_anew_stops_the_worker_even_where_its_offsets_would_fit(
    log_url: str, topic: str, engine: sa.Engine, producer: Producer, zenstep: Command
) -> None:
    tenants = Tenants(engine, producer, topic)
    tenants.send(3)
    producer.produce(topic, 0, b"poison").result(20)
    with working(engine, log_url, [topic], "g" + topic):
        until(lambda: Counting(engine).ledger().get("consumed") == 25)
    [old] = {standing.identity for standing in Offsets(engine).of([topic])} - {None}
    assert old is not None
    make_anew(log_url, topic, PARTITIONS)
    with producing(log_url, topic) as fresh:
        tenants.producer = fresh
        fresh.produce(topic, 0, b"other poison").result(20)
        tenants.send(4)
        before = snapshot(engine)
        error = stopped(engine, log_url, topic)
        assert isinstance(error, TopicRecreated)
        assert f"{topic} was made anew: the store's offsets are of {old}" in str(error)
        assert f"decide with zenstep offsets adopt --topic {topic}" in str(error)
        assert snapshot(engine) == before
        assert str(error) in zenstep.refuses("offsets", "list")
        refused = zenstep.refuses("offsets", "move", "--topic", topic, "--partition", "0", "--to", "latest", "--yes")
        assert str(error) in refused
        assert "nothing is changed without --yes" in zenstep.refuses("offsets", "adopt", "--topic", topic)
        assert snapshot(engine) == before
        assert aside(topic, old) in zenstep("offsets", "adopt", "--topic", topic, "--yes")
        assert "nothing to adopt" in zenstep.refuses("offsets", "adopt", "--topic", topic, "--yes")
        with working(engine, log_url, [topic], "g" + topic):
            until(lambda: Counting(engine).ledger()["consumed"] == 25 + 33)
    ledger = Counting(engine)
    assert ledger.ledger(topic=topic) == {"consumed": 33, "counted": 32, "rejected:unreadable": 1}
    assert ledger.ledger(topic=aside(topic, old)) == {"consumed": 25, "counted": 24, "rejected:unreadable": 1}
    rows = {row["topic"]: row["body"] for row in snapshot(engine)["rejected"]}
    assert rows == {topic: "other poison", aside(topic, old): "poison"}
    through = Queries(engine).processed_through(tenants.flows[0].organisation, topic)
    assert through is not None


def test_a_topic_made_anew_while_it_is_read_stops_the_worker_before_it_writes(
    log_url: str, topic: str, engine: sa.Engine, producer: Producer
) -> None:
    tenants = Tenants(engine, producer, topic)
    with ending(Working(engine, log_url, [topic], "g" + topic)) as worker:
        tenants.send(2)
        until(tenants.counted)
        before = snapshot(engine)["ledger"]
        make_anew(log_url, topic, PARTITIONS)
        with producing(log_url, topic) as fresh:
            tenants.producer = fresh
            tenants.send(10)
            until(worker.ended)
    assert isinstance(worker.error, TopicRecreated)
    assert snapshot(engine)["ledger"] == before


def test_topics_grow_under_load_and_every_event_counts_once(
    log_url: str, topic: str, engine: sa.Engine, tenants: Tenants, zenstep: Command, settings: dict[str, str]
) -> None:
    queries = Queries(engine)
    with working(engine, log_url, [topic], "g" + topic):
        tenants.send()
        until(tenants.counted)
        grown = 2 * PARTITIONS
        assert f"{topic}: {grown} partitions\n" in zenstep("topics", "grow", "--partitions", str(grown))
        tenants.producer.partitions(topic)
        tenants.partitions = grown
        tenants.send()
        until(tenants.counted)
        until(lambda: all(queries.processed_through(flow.organisation, topic) for flow in tenants.flows))
        assert len(zenstep.rows(topic)) == grown
        assert f"{topic}: {grown} partitions already\n" in zenstep("topics", "grow", "--partitions", str(grown))
        assert "none can be taken away" in zenstep.refuses("topics", "grow", "--partitions", "2")
    tenants.check()


def test_a_topic_that_is_about_to_grow_is_promised_nothing_of_where_nobody_has_read(
    log_url: str, topic: str, engine: sa.Engine, tenants: Tenants, zenstep: Command
) -> None:
    """An event may already be in a new partition that no worker knows of yet."""
    queries = Queries(engine)
    with working(engine, log_url, [topic], "g" + topic):
        tenants.send(1)
        until(tenants.counted)
        until(lambda: all(queries.processed_through(flow.organisation, topic) for flow in tenants.flows))
    zenstep("topics", "grow", "--partitions", str(5 * PARTITIONS))
    moved = [queries.processed_through(flow.organisation, topic) for flow in tenants.flows]
    assert None in moved
