"""`zenstep audit` on a live system: it holds while events come in, and names the place of every break."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backends.log import TopicPartition, open_producer
from backends.log.sqlite import SqliteLogAdmin, connect
from backends.store.accounts import Accounts, EdgeSums
from backends.store.engine import open_engine
from ingest import tally
from schemas import tables as t
from schemas.ids import NIL, partition_of
from tests.commands import Zenstep
from tests.edges import PARTITIONS, Running, accepted, edge, locked, make_topics, make_world
from tests.stepping import Stepping, stepping
from tests.working import until, working
from tests.worlds import new_id
from workers.closer import Closer


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "EVERY_SECONDS", 0.02)


class Audited:
    """A system with an edge, and the command on it."""

    def __init__(self, system: Stepping, zenstep: Zenstep) -> None:
        self.system = system
        self.zenstep = zenstep
        self.acorn, self.birch = system.world.organisations
        self.topic = system.world.topics.events
        self.partition = partition_of(self.acorn, PARTITIONS)

    def post(self, *events: dict[str, Any], key: int = 0) -> None:
        answer = self.system.post("/events", {"events": list(events)}, key)
        assert answer.status_code == 202, answer.content

    def view(self, **fields: Any) -> dict[str, Any]:
        return {"eventType": "view", "id": new_id(), "flowId": self.system.flow.flow_id, "sessionId": "s-1", **fields}

    def close_days(self) -> None:
        """As if today were over."""
        Closer(self.system.engine, clock=lambda: time.time() + t.DAY).close_days()

    def traffic(self) -> None:
        """Of all kinds: 5 events and 3 small writes that count, a duplicate, a rejected one, and what is refused."""
        step = self.system.steps[0]
        twice = self.view()
        custom = {"eventType": "custom", "name": "opened"}
        self.post(twice, self.view(stepId=step, userId="u"), custom, custom | {"flowId": self.system.flow.flow_id})
        self.post(twice)
        self.post(self.view(flowId=new_id()))
        self.post(self.view(flowId=self.system.foreign.flow_id, eventType="complete"), key=1)
        self.system.post("/events", {"events": [{"eventType": "click"}]})
        self.system.taken(f"/steps/{step}/health", {"flowId": self.system.flow.flow_id, "found": True})
        assert self.system.get("/heartbeat").status_code == 200
        assert self.system.get("/heartbeat", key=1).status_code == 200

    def told(self) -> int:
        """Events that edges have told the store of."""
        with self.system.engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.sum(t.accepted.c.events))).scalar() or 0)

    def change(self, statement: sa.Executable) -> None:
        with self.system.engine.begin() as connection:
            assert connection.execute(statement).rowcount != 0

    def broken(self, *arguments: str) -> list[dict[str, Any]]:
        result = self.zenstep.run("audit", *arguments)
        assert result.exit_code == 1, result.output
        assert result.stdout.splitlines()[-1] == "DOES NOT HOLD"
        return list(self.document(1, *arguments)["breaks"])

    def document(self, code: int, *arguments: str) -> dict[str, Any]:
        result = self.zenstep.run("audit", *arguments, "--json")
        assert result.exit_code == code, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        return document


def zenstep(system: Stepping, folder: Path) -> Zenstep:
    command = Zenstep(system.world.settings.store_url, folder)
    command.environment |= {
        "ZENSTEP_LOG_URL": system.world.settings.log_url,
        "ZENSTEP_TOPIC_PREFIX": system.world.settings.topic_prefix,
    }
    return command


@pytest.fixture
def audited(store_url: str, tmp_path: Path) -> Iterator[Audited]:
    """Nobody counts yet."""
    with stepping(f"sqlite:///{tmp_path}/log.db", store_url, worker=False) as system:
        yield Audited(system, zenstep(system, tmp_path))


@pytest.fixture
def counted(audited: Audited) -> Audited:
    """With traffic, all of it counted, and no worker any more."""
    audited.traffic()
    count(audited)
    return audited


def count(audited: Audited) -> None:
    system = audited.system
    until(lambda: audited.told() == 11)
    with working(system.engine, system.world.settings.log_url, system.world.topics.all(), "workers"):
        system.counted(11)


def line(organisation: str, topic: str, partition: int, what: str, found: int, expected: int) -> str:
    return f"{organisation} {topic}[{partition}]: {what}: {found} instead of {expected} ({found - expected:+})"


def test_it_holds_and_shows_the_sums(counted: Audited) -> None:
    assert counted.zenstep("audit").splitlines() == [
        "accepted by edges                      11",
        "  acknowledged by the log              11",
        "  spooled                               0",
        "    flushed into the log                0",
        "    still in spools                     0",
        "consumed                               11",
        "  counted                               8",
        "  duplicate                             1",
        "  rejected                              2",
        "records not yet consumed                0",
        "holds",
    ]
    document = counted.document(0, "--read-log", "--spools-empty")
    assert (document["holds"], document["breaks"], document["not_compared"]) == (True, [], [])
    assert document["events"]["accepted"] == document["events"]["consumed"] == 11


def test_one_organisation_is_shown_alone(counted: Audited) -> None:
    document = counted.document(0, "--org", counted.birch, "--read-log")
    assert {name: document["events"][name] for name in ("accepted", "consumed", "counted")} == {
        "accepted": 2,
        "consumed": 2,
        "counted": 2,
    }
    counted.change(t.seen.delete().where(t.seen.c.organisation_id == counted.acorn))
    assert counted.document(0, "--org", counted.birch)["holds"] is True
    assert counted.document(1, "--org", counted.acorn)["holds"] is False


def test_an_empty_system_holds(audited: Audited) -> None:
    assert audited.zenstep("audit", "--read-log", "--spools-empty").endswith("\nholds\n")


def test_it_holds_at_every_moment_of_live_traffic(audited: Audited) -> None:
    system = audited.system
    done = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not done.is_set() and sent < 250:  # below the limit of the bucket
            audited.post(audited.view(), {"eventType": "custom", "name": "opened"})
            sent += 1

    sending = threading.Thread(target=send)
    with working(system.engine, system.world.settings.log_url, system.world.topics.all(), "workers", records=3):
        sending.start()
        try:
            until(lambda: audited.told() > 0)
            for _ in range(4):
                assert audited.zenstep("audit", "--read-log").endswith("\nholds\n")
        finally:
            done.set()
            sending.join()
        until(lambda: audited.told() == 2 * sent)
        assert audited.document(0, "--spools-empty")["events"]["consumed"] == 2 * sent


def test_on_kafka_and_postgresql(kafka_servers: str, postgres_url: str, tmp_path: Path) -> None:
    with stepping(f"kafka://{kafka_servers}", postgres_url, worker=False) as system:
        audited = Audited(system, zenstep(system, tmp_path))
        audited.traffic()
        count(audited)
        assert audited.document(0, "--read-log", "--spools-empty")["events"]["consumed"] == 11
        lost = t.offsets.c.partition == audited.partition, t.offsets.c.topic == audited.topic
        audited.post(audited.view())
        until(lambda: audited.told() == 12)
        audited.change(t.offsets.update().where(*lost).values(next_offset=t.offsets.c.next_offset + 1))
        (broken,) = audited.broken("--wait", "5")
        assert (broken["organisation"], broken["topic"], broken["partition"]) == (
            audited.acorn,
            audited.topic,
            audited.partition,
        )


def test_workers_that_are_behind_are_waited_for(audited: Audited) -> None:
    audited.post(audited.view())
    audited.post(audited.view())
    until(lambda: audited.told() == 2)
    result = audited.zenstep.run("audit", "--wait", "0.1")
    assert result.exit_code == 2
    assert result.stdout.splitlines()[-2:] == [
        f"{audited.topic}[{audited.partition}] is 2 records behind",
        "cannot tell: workers are behind",
    ]
    assert audited.document(2, "--wait", "0")["holds"] is None
    system = audited.system
    with working(system.engine, system.world.settings.log_url, system.world.topics.all(), "workers"):
        assert audited.document(0, "--wait", "60")["events"]["consumed"] == 2


def test_what_is_wrong_already_is_said_though_workers_are_behind(counted: Audited) -> None:
    counted.post(counted.view())
    counted.change(t.seen.delete().where(t.seen.c.organisation_id == counted.birch))
    assert [one["organisation"] for one in counted.broken("--wait", "0")] == [counted.birch]


def test_a_changed_ledger_is_named(counted: Audited) -> None:
    c = t.ledger.c
    of = (c.organisation_id == counted.acorn, c.topic == counted.topic)
    counted.change(t.ledger.update().where(*of, c.outcome == "duplicate").values(events=0))
    lines = counted.zenstep.run("audit").stdout.splitlines()
    what = "events counted, duplicate or rejected of those consumed"
    assert lines[-2:] == [line(counted.acorn, counted.topic, counted.partition, what, 5, 6), "DOES NOT HOLD"]
    counted.change(t.ledger.update().where(*of, c.outcome == "consumed").values(events=5))
    promised = "events consumed that edges put into the log"
    lines = counted.zenstep.run("audit", "--read-log").stdout.splitlines()
    assert lines[-3:] == [
        line(counted.acorn, counted.topic, counted.partition, promised, 5, 6),
        line(counted.acorn, counted.topic, counted.partition, "events consumed of those in the log", 5, 6),
        "DOES NOT HOLD",
    ]


ROWS: list[tuple[sa.Table, dict[str, int] | None, str]] = [
    (t.seen, None, "ids seen"),
    (t.counts, {"views": 17}, "events in the cells of 900 s"),
    (t.custom_events, {"events": 17}, "events in the cells of 900 s"),
    (t.cohorts, {"sessions": 17}, "sessions in the cells of 900 s"),
    (t.cohorts, {"starts": 17}, "starts in the cells"),
    (t.counts, {"sessions": 17}, "sessions of steps in the cells"),
    (t.sessions, None, "sessions in the cells"),
]


def test_a_row_that_is_changed_or_gone_is_named(counted: Audited) -> None:
    """Those of days too, which are made when the day is over."""
    counted.close_days()
    for table, change, what in ROWS:
        mine = sa.select(table).where(table.c.organisation_id == counted.acorn).order_by(*table.primary_key).limit(1)
        with counted.system.engine.connect() as connection:
            row = connection.execute(mine).mappings().one()
        at = sa.and_(*(table.c[column.name] == row[column.name] for column in table.primary_key))
        counted.change(table.delete().where(at) if change is None else table.update().where(at).values(change))
        broken = counted.document(1)["breaks"]
        assert {one["organisation"] for one in broken} == {counted.acorn}
        assert broken[0]["what"].startswith(what)
        assert all(one["found"] != one["expected"] for one in broken)
        counted.change(table.insert().values(row) if change is None else table.update().where(at).values(row))
    assert counted.document(0)["holds"] is True


def test_only_the_day_is_wrong(counted: Audited) -> None:
    counted.close_days()
    day = sa.and_(t.counts.c.organisation_id == counted.acorn, t.counts.c.grain == 86_400, t.counts.c.step_id == "")
    counted.change(t.counts.update().where(day).values(views=t.counts.c.views + 1))
    lines = counted.zenstep.run("audit").stdout.splitlines()
    assert lines[-2] == f"{counted.acorn}: events in the cells of 86400 s of those counted: 5 instead of 4 (+1)"


def test_a_rejected_row_that_is_gone_is_named(counted: Audited) -> None:
    counted.change(t.rejected.delete().where(t.rejected.c.reason == "unknown_flow"))
    (broken,) = counted.broken()
    assert broken["what"].startswith("rows of rejected events")
    assert (broken["organisation"], broken["topic"], broken["partition"], broken["found"], broken["expected"]) == (
        counted.acorn,
        counted.topic,
        counted.partition,
        0,
        1,
    )


def test_records_that_a_worker_never_read_are_a_loss(counted: Audited) -> None:
    counted.post(counted.view(), counted.view())
    until(lambda: counted.told() == 13)
    at = (t.offsets.c.topic == counted.topic, t.offsets.c.partition == counted.partition)
    counted.change(t.offsets.update().where(*at).values(next_offset=t.offsets.c.next_offset + 1))
    promised = "events consumed that edges put into the log"
    assert counted.zenstep.run("audit", "--read-log").stdout.splitlines()[-3:] == [
        line(counted.acorn, counted.topic, counted.partition, promised, 6, 8),
        line(counted.acorn, counted.topic, counted.partition, "events consumed of those in the log", 6, 8),
        "DOES NOT HOLD",
    ]


def test_a_topic_made_anew_and_adopted_is_one_with_the_old_one(counted: Audited) -> None:
    """Also where retention has dropped what was set aside of the old one."""
    assert counted.zenstep.run("prune", "--rejected-days", "1").exit_code == 0
    with counted.system.engine.begin() as connection:
        dropped = t.rejected.delete().where(t.rejected.c.reason == "unknown_flow")
        assert connection.execute(dropped).rowcount == 1
        place = {"organisation_id": counted.acorn, "topic": counted.topic, "partition": counted.partition}
        connection.execute(t.pruned.insert().values(place | {"table": "rejected", "removed": 1}))
    log = counted.system.world.settings.log_url
    with closing(connect(log.removeprefix("sqlite:///"))) as connection:
        for table in ("topics", "ends", "records"):
            connection.execute(f"DELETE FROM {table} WHERE topic = ?", (counted.topic,))
    make_topics(counted.system.world)
    assert counted.zenstep.run("offsets", "adopt", "--topic", counted.topic, "--yes").exit_code == 0
    result = counted.zenstep.run("audit")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "holds"), result.output


def test_an_offset_beyond_the_log_is_named(counted: Audited) -> None:
    at = (t.offsets.c.topic == counted.topic, t.offsets.c.partition == counted.partition)
    counted.change(t.offsets.update().where(*at).values(next_offset=99))
    (broken,) = counted.broken()
    assert (broken["topic"], broken["partition"], broken["found"]) == (counted.topic, counted.partition, 99)
    assert broken["organisation"] is None


def test_records_that_were_gone_before_they_were_counted_are_a_loss(counted: Audited) -> None:
    counted.post(counted.view())
    until(lambda: counted.told() == 12)
    path = counted.system.world.settings.log_url.removeprefix("sqlite:///")
    with closing(SqliteLogAdmin(path)) as admin:
        admin.delete_before(TopicPartition(counted.topic, counted.partition), 100)
    broken = counted.broken("--wait", "0")
    assert [(one["topic"], one["partition"]) for one in broken] == [(counted.topic, counted.partition)]
    assert broken[0]["what"].startswith("records removed from the log before they were counted")


def test_a_record_that_vanished_is_found_where_the_log_is_read(counted: Audited) -> None:
    path = counted.system.world.settings.log_url.removeprefix("sqlite:///")
    with closing(connect(path)) as log:
        query = "DELETE FROM records WHERE topic = ? AND partition = ? AND offset = 1"
        assert log.execute(query, (counted.topic, counted.partition)).rowcount == 1
    assert counted.document(0)["holds"] is True
    (broken,) = counted.broken("--read-log")
    assert broken == {
        "organisation": counted.acorn,
        "topic": counted.topic,
        "partition": counted.partition,
        "what": "events consumed of those in the log",
        "found": 6,
        "expected": 5,
    }


def test_a_log_without_its_beginning_is_not_compared(counted: Audited) -> None:
    path = counted.system.world.settings.log_url.removeprefix("sqlite:///")
    with closing(SqliteLogAdmin(path)) as admin:
        admin.delete_before(TopicPartition(counted.topic, counted.partition), 1)
    document = counted.document(0, "--read-log")
    assert document["not_compared"] == [{"topic": counted.topic, "partition": counted.partition}]
    assert "has lost its beginning" in counted.zenstep("audit", "--read-log")


def test_what_is_still_in_spools_is_shown_and_must_come_once_they_are_empty(counted: Audited) -> None:
    sums = EdgeSums(counted.system.engine)
    sums.set("e1", {(counted.acorn, counted.topic, -1, "spooled"): 10}, 1)
    sums.set("e2", {(counted.birch, counted.topic, -1, "spooled"): 1}, 1)
    document = counted.document(0)
    assert (document["events"]["spooled"], document["events"]["in_spools"]) == (11, 11)
    lines = counted.zenstep.run("audit", "--spools-empty").stdout.splitlines()
    what = "events consumed that edges accepted, their spools being empty"
    assert sorted(lines[-3:-1]) == sorted(
        [
            f"{counted.acorn} {counted.topic}: {what}: 6 instead of 16 (-10)",
            f"{counted.birch} {counted.topic}: {what}: 1 instead of 2 (-1)",
        ]
    )
    sums.set("e3", {(counted.acorn, counted.topic, counted.partition, "flushed"): 4}, 1)
    assert counted.document(1)["events"]["in_spools"] == 7  # and the four are not in the ledger


def test_what_went_through_a_spool_is_followed_to_the_numbers(store_url: str, tmp_path: Path) -> None:
    log_url = f"sqlite:///{tmp_path}/log.db"
    world = make_world(log_url, store_url, spool_path=str(tmp_path / "spool"), produce_timeout=0.2)
    command = Zenstep(store_url, tmp_path)
    command.environment["ZENSTEP_TOPIC_PREFIX"] = world.settings.topic_prefix
    engine = open_engine(store_url)

    def events(*arguments: str) -> dict[str, int]:
        found: dict[str, int] = command.json("audit", "--wait", "60", *arguments)["events"]
        return found

    with edge(world) as client, working(engine, log_url, world.topics.all(), "workers"):
        with locked(tmp_path / "log.db"):
            for key in (0, 1):
                opened = {"eventType": "custom", "name": "opened"}
                accepted(Running(world, client).post({"events": [opened, opened]}, key), 2)
            until(lambda: sum(Accounts(engine).accepted().values()) == 4)
            told = events()
            assert (told["accepted"], told["spooled"], told["flushed"], told["in_spools"]) == (4, 4, 0, 4)
        until(lambda: events()["in_spools"] == 0)
        told = events("--spools-empty", "--read-log")
        assert told["spooled"] == told["flushed"] == told["counted"] == 4
        assert told["consumed"] >= 4  # those whose fate was not known may be in the log twice
    engine.dispose()


def test_an_edge_that_was_killed_before_it_told_of_its_spool_is_no_break(counted: Audited) -> None:
    sums = EdgeSums(counted.system.engine)
    with counted.system.engine.begin() as connection:
        connection.execute(t.accepted.delete())
    sums.set("e1", {(counted.acorn, counted.topic, counted.partition, "flushed"): 6}, 1)
    document = counted.document(0, "--spools-empty")
    assert (document["events"]["flushed"], document["events"]["spooled"], document["events"]["in_spools"]) == (6, 0, 0)


def test_unreadable_and_parked_lines_add_up(audited: Audited) -> None:
    lines = [
        b"\xff not a line",
        b'{"kind":"events","v":99,"org":"%s","received":1774872000000,"events":[1,2,3]}' % audited.acorn.encode(),
    ]
    producer = open_producer(audited.system.world.settings.log_url)
    producer.produce(audited.topic, audited.partition, b"\n".join(lines)).result(60)
    producer.close(10)
    system = audited.system
    with working(system.engine, system.world.settings.log_url, system.world.topics.all(), "workers"):
        system.counted(2)
    document = audited.document(0, "--read-log")
    assert document["events"]["rejected"] == document["events"]["consumed"] >= 2
    assert audited.document(0, "--org", NIL, "--read-log")["events"]["rejected"] == 1


def test_an_unknown_organisation_is_named(audited: Audited) -> None:
    result = audited.zenstep.run("audit", "--org", new_id())
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no organisation" in result.stderr


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("away", ["ZENSTEP_STORE_URL", "ZENSTEP_LOG_URL"])
def test_a_system_that_cannot_be_asked_does_not_pass_for_a_break(audited: Audited, away: str) -> None:
    audited.zenstep.environment[away] = {
        "ZENSTEP_STORE_URL": "postgresql://postgres@127.0.0.1:1/none",
        "ZENSTEP_LOG_URL": "kafka://127.0.0.1:1",
    }[away]
    result = audited.zenstep.run("audit")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "does not answer" in result.stderr
