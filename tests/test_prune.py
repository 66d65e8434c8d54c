"""`zenstep prune`: what is past its retention goes, nothing counts twice for it, and the audit still holds."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backends.log import TopicPartition, open_producer, open_reader
from backends.log.sqlite import connect
from backends.store import retention as retention_module
from backends.store.accounts import ENDED, Accounts, EdgeSums
from backends.store.catalog import Flow
from backends.store.counting import Counting
from backends.store.engine import open_engine
from backends.store.retention import Busy, Retention
from cli import prune as prune_module
from cli.balance import within_the_store
from cli.prune import first_day
from ingest import tally
from schemas import tables as t
from schemas.records import RecordEvent
from service.settings import Settings
from tests.commands import Zenstep
from tests.stepping import stepping
from tests.working import until, working
from tests.worlds import NOW, Partitions, apply, envelope, event, make_flows, new_id
from workers.batch import Batches

DAY = 86_400_000
TODAY = NOW // DAY
TOPIC = "zenstep.events"


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


@pytest.fixture
def zenstep(store_url: str, tmp_path: Path) -> Zenstep:
    """With a log that has the topics."""
    command = Zenstep(store_url, tmp_path)
    command("topics", "create")
    return command


class World:
    """One organisation with a flow, and a log in memory that is counted at once."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        flows: list[Flow]
        self.organisation, flows = make_flows(engine, [2])
        self.flow = flows[0]
        self._log = Partitions(TOPIC)

    def view(self, at: int, **fields: Any) -> RecordEvent:
        return event(flow=self.flow.flow_id, session=f"s-{at}", time=at, **fields)

    def count(self, *events: RecordEvent, at: int) -> None:
        """Received, logged and counted at this time."""
        apply(self.engine, self._log.record(envelope(self.organisation, *events, received=at), timestamp=at))

    def ledger(self) -> dict[str, int]:
        return Counting(self.engine).ledger()

    def seen(self) -> set[str]:
        with self.engine.connect() as connection:
            return set(connection.execute(sa.select(t.seen.c.event_id)).scalars())

    def holds(self) -> bool:
        return list(within_the_store(Accounts(self.engine).books())) == []


@pytest.fixture
def world(engine: sa.Engine) -> World:
    return World(engine)


def rows(engine: sa.Engine, table: sa.Table) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() or 0)


def test_ids_of_days_before_the_horizon_are_dropped_and_the_books_agree(world: World) -> None:
    old = [world.view(NOW - DAY) for _ in range(3)]
    young = [world.view(NOW) for _ in range(2)]
    world.count(*old, *young, at=NOW)
    retention = Retention(world.engine)
    assert retention.drop_days(TODAY) == 3
    assert world.seen() == {one.id for one in young}
    assert world.holds()
    assert retention.drop_days(TODAY) == 0
    assert retention.drop_days(TODAY - 5) == 0
    with world.engine.connect() as connection:
        assert connection.execute(sa.select(t.horizon.c.day)).scalars().all() == [TODAY], "the horizon never falls"
    assert world.holds()


def test_an_event_whose_day_is_dropped_is_too_old_and_never_counted_again(world: World) -> None:
    late, new = world.view(NOW - DAY), world.view(NOW - DAY)
    world.count(late, at=NOW)
    Retention(world.engine).drop_days(TODAY)
    world.count(late, new, world.view(NOW), at=NOW)
    assert world.ledger() == {"consumed": 4, "counted": 2, "rejected:too_old": 2}
    assert world.holds()


def test_a_dropped_day_is_made_again_by_a_late_event_and_dropped_again(world: World) -> None:
    world.count(world.view(NOW - DAY), at=NOW)
    retention = Retention(world.engine)
    retention.drop_days(TODAY)
    world.count(world.view(NOW - DAY), at=NOW)
    assert retention.drop_days(TODAY) == 0
    assert world.holds()


def test_a_worker_in_mid_transaction_is_waited_for(world: World) -> None:
    """It has read the horizon and enters an id of a day that is to be dropped: the id is dropped with its day."""
    world.count(world.view(NOW - DAY), at=NOW)
    dropped: list[int] = []
    pruning = threading.Thread(target=lambda: dropped.append(Retention(world.engine).drop_days(TODAY)))
    with Counting(world.engine).transaction() as transaction:
        assert transaction.horizon() < TODAY
        pruning.start()
        until(lambda: waits(world.engine))
        assert transaction.add_seen({(world.organisation, TODAY - 1): [new_id()]}) == set()
        transaction.add(t.ledger, {(world.organisation, TOPIC, 0, name): [1] for name in ("consumed", "counted")})
    pruning.join()
    assert dropped == [2]
    assert world.seen() == set()


def waits(engine: sa.Engine) -> bool:
    """Somebody waits for a lock of this database. SQLite has one for all and does not tell."""
    if engine.dialect.name == "sqlite":
        return True
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with engine.connect() as connection:
        return bool(connection.execute(sa.text(query)).scalar())


def test_nothing_doubles_while_workers_count_and_days_go(world: World) -> None:
    """Every event arrives three times and more, until days of theirs are gone: none is counted twice."""
    done = threading.Event()
    errors: list[BaseException] = []
    rounds = 0

    def pruning() -> None:
        try:
            day = TODAY - 9
            while not done.is_set():
                Retention(world.engine).drop_days(min(day, TODAY - 2))
                Retention(world.engine).drop_sessions(day * DAY)
                Retention(world.engine).drop_rejected(NOW + DAY)
                day += 1
        except BaseException as error:
            errors.append(error)

    events = [world.view(NOW - (n % 8) * DAY) for n in range(240)]
    thread = threading.Thread(target=pruning)
    thread.start()
    try:
        batches = Batches(world.engine)
        log = Partitions(TOPIC)

        def once_more() -> bool:
            nonlocal rounds
            for start in range(0, len(events), 12):
                record = log.record(envelope(world.organisation, *events[start : start + 12]))
                apply(world.engine, record, batches=batches)
                assert world.holds(), "in the middle of it too"
            rounds += 1
            return rounds >= 3 and (errors != [] or "rejected:too_old" in world.ledger())

        until(once_more)
    finally:
        done.set()
        thread.join()
    assert errors == []
    ledger = world.ledger()
    assert ledger["consumed"] == rounds * len(events)
    assert 0 < ledger["counted"] <= len(events)
    assert ledger["duplicate"] > 0
    with world.engine.connect() as connection:
        views = connection.execute(sa.select(sa.func.sum(t.counts.c.views)).where(t.counts.c.grain == t.DAY)).scalar()
    assert views == ledger["counted"]
    assert world.holds()


def test_a_session_goes_after_its_last_step_and_its_numbers_stay(world: World) -> None:
    flow = world.flow.flow_id
    long = [
        event(flow=flow, session="long", time=NOW - 3 * DAY),
        event("complete", flow=flow, session="long", time=NOW),
    ]
    short = event(flow=flow, session="short", time=NOW - 3 * DAY)
    world.count(*long, short, at=NOW)
    retention = Retention(world.engine)
    assert retention.drop_sessions(NOW - DAY) == 1
    assert retention.drop_sessions(NOW - DAY) == 0
    assert rows(world.engine, t.sessions) == 1
    with world.engine.connect() as connection:
        c = t.cohorts.c
        starts = connection.execute(sa.select(sa.func.sum(c.starts), sa.func.sum(c.completed)).where(c.grain == t.DAY))
        assert tuple(starts.one()) == (2, 1)
    assert world.holds()
    world.count(event("complete", flow=flow, session="short", time=NOW), at=NOW)
    assert rows(world.engine, t.sessions) == 2  # it is known no more, so it is another
    assert world.holds()


def test_a_worker_that_has_read_a_session_does_not_put_it_back(world: World) -> None:
    world.count(world.view(NOW - 3 * DAY), at=NOW)
    dropped: list[int] = []
    pruning = threading.Thread(target=lambda: dropped.append(Retention(world.engine).drop_sessions(NOW - DAY)))
    with world.engine.connect() as connection:
        row = connection.execute(sa.select(t.sessions)).one()
    key = (row.organisation_id, row.flow_id, row.session)
    with Counting(world.engine).transaction() as transaction:
        transaction.lock_organisations([world.organisation])
        known = transaction.sessions([key])
        pruning.start()
        until(lambda: waits(world.engine))
        transaction.save_sessions({key: known[key]._replace(completed_at=NOW)})
    pruning.join()
    assert dropped == [0]
    assert rows(world.engine, t.sessions) == 1
    assert world.holds()


def test_rejected_events_go_by_their_receipt_and_the_books_agree(world: World) -> None:
    strange = event(flow=new_id())
    world.count(strange, strange, at=NOW - DAY)
    world.count(strange, at=NOW)
    apply(world.engine, Partitions("other").record(b"\xff", timestamp=NOW - DAY))
    retention = Retention(world.engine)
    assert retention.drop_rejected(NOW) == 3
    assert retention.drop_rejected(NOW) == 0
    assert rows(world.engine, t.rejected) == 1
    assert world.holds()


def test_edges_that_ended_become_one(engine: sa.Engine) -> None:
    sums = EdgeSums(engine)
    acorn, birch = (("acorn", TOPIC, 1, "acknowledged"), ("birch", TOPIC, -1, "spooled"))
    sums.set("ended", {acorn: 5}, NOW - 9 * DAY)
    sums.set("ended too", {acorn: 7, birch: 1}, NOW - 8 * DAY)
    sums.set("alive", {acorn: 2}, NOW - 9 * DAY)
    sums.set("alive", {birch: 4}, NOW)
    before = Accounts(engine).accepted()
    retention = Retention(engine)
    assert retention.fold_edges(NOW - 7 * DAY) == 2
    assert retention.fold_edges(NOW - 7 * DAY) == 0
    assert Accounts(engine).accepted() == before
    with engine.connect() as connection:
        query = sa.select(t.accepted.c.edge).order_by(t.accepted.c.edge)
        assert connection.execute(query).scalars().all() == [ENDED, ENDED, "alive", "alive"]
    sums.set("ended later", {acorn: 1}, NOW - 8 * DAY)
    assert retention.fold_edges(NOW - 7 * DAY) == 1
    assert Accounts(engine).accepted()[acorn] == 15


def test_who_never_gets_the_lock_says_so(postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(retention_module, "LOCK_MS", 20)
    monkeypatch.setattr(retention_module, "PAUSE_SECONDS", (0.0, 0.0))
    engine = open_engine(postgres_url)
    World(engine).count(at=NOW)
    zenstep = Zenstep(postgres_url, tmp_path)
    zenstep("topics", "create")
    with engine.begin() as connection:
        connection.execute(sa.select(t.horizon))
        with pytest.raises(Busy):
            Retention(engine).drop_days(TODAY)
        assert zenstep.refuses("prune") == (
            "others hold the store's tables; what was dropped before stays dropped. Try again later."
        )
    engine.dispose()


@pytest.mark.parametrize(("spool_hours", "days"), [(1, 15), (24, 15), (72, 17)])
def test_ids_are_kept_for_twice_the_window_and_the_time_in_a_spool(spool_hours: float, days: int) -> None:
    settings = Settings(spool_max_age=spool_hours * 3600)
    assert first_day(NOW, settings) == TODAY - days


def test_the_command_drops_by_what_is_counted_and_by_the_clock(
    world: World, zenstep: Zenstep, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns() // 1_000_000
    world.count(world.view(now - 20 * DAY), at=now - 20 * DAY)
    world.count(event(flow=new_id()), at=now - 31 * DAY)
    assert zenstep.json("prune") == {
        "ids_before": date_of(now - 35 * DAY),
        "ids": 0,
        "sessions": 0,
        "rejected": 1,
        "edges": 0,
        "log_records": 0,
    }, "workers have come to 20 days ago: until then their ids are needed"
    world.count(world.view(now - 100), at=now)
    assert zenstep("prune", "--session-days", "15").splitlines() == [
        f"ids of days before {date_of(now - 15 * DAY)}             1",
        "sessions                                  1",
        "rejected events                           0",
        "ended edges folded into one               0",
        "records of the log                        0",
    ]
    again = zenstep.json("prune", "--session-days", "15")
    assert [again[name] for name in ("ids", "sessions", "rejected", "edges", "log_records")] == [0] * 5
    assert world.holds()


def date_of(at: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at / 1000))


def test_before_anything_is_counted_no_id_is_dropped(zenstep: Zenstep, engine: sa.Engine) -> None:
    assert zenstep.json("prune")["ids_before"] is None
    assert zenstep("prune").splitlines()[0] == "ids: nothing is counted yet               0"


def test_the_sqlite_log_keeps_what_is_young_or_not_counted(
    zenstep: Zenstep, engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = f"sqlite:///{tmp_path}/log.db"
    producer = open_producer(log)
    for partition in (0, 1):
        for _ in range(12):
            producer.produce(TOPIC, partition, b"x").result(60)
    producer.close(10)
    monkeypatch.setattr(prune_module, "STEP", 3)
    Counting(engine).offsets({TopicPartition(TOPIC, 0): 10})
    assert zenstep.json("prune")["log_records"] == 0, "all of it is young"
    with closing(connect(str(tmp_path / "log.db"))) as aged:
        aged.execute("UPDATE records SET timestamp = timestamp - ?", (31 * DAY,))
    assert zenstep.json("prune")["log_records"] == 10
    assert zenstep.json("prune")["log_records"] == 0
    with closing(open_reader(log)) as reader:
        partitions = [TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)]
        assert reader.beginning_offsets(partitions) == dict(zip(partitions, (10, 0), strict=True))
        assert [record.offset for record in reader.read(partitions[0], 10, 100)] == [10, 11]


def test_kafka_keeps_its_own_retention(kafka_servers: str, postgres_url: str, tmp_path: Path) -> None:
    zenstep = Zenstep(postgres_url, tmp_path)
    zenstep.environment |= {"ZENSTEP_LOG_URL": f"kafka://{kafka_servers}", "ZENSTEP_TOPIC_PREFIX": f"p{new_id()}"}
    zenstep("topics", "create")
    assert zenstep.json("prune")["log_records"] is None
    assert zenstep("prune").splitlines()[-1] == "records of the log: Kafka's own retention"


def test_the_audit_holds_while_a_live_system_is_pruned(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "EVERY_SECONDS", 0.02)
    log_url = f"sqlite:///{tmp_path}/log.db"
    with stepping(log_url, store_url, worker=False) as system:
        zenstep = Zenstep(store_url, tmp_path)
        zenstep.environment["ZENSTEP_TOPIC_PREFIX"] = system.world.settings.topic_prefix
        now = time.time_ns() // 1_000_000
        done = threading.Event()
        sent = 0

        def send() -> None:
            nonlocal sent
            while not done.is_set() and sent < 250:
                one = {"eventType": "view", "id": new_id(), "flowId": system.flow.flow_id, "sessionId": new_id()}
                old = {**one, "id": new_id(), "timestamp": now - 6 * DAY}
                body = {"events": [one, old, {**one, "id": new_id(), "flowId": new_id()}]}
                assert system.post("/events", body).status_code == 202
                sent += 1

        sending = threading.Thread(target=send)
        with working(system.engine, log_url, system.world.topics.all(), "workers", records=5):
            sending.start()
            try:
                for day in range(now // DAY - 7, now // DAY - 4):
                    Retention(system.engine).drop_days(day)
                    Retention(system.engine).drop_sessions(now - DAY)
                    Retention(system.engine).drop_rejected(time.time_ns() // 1_000_000)
                    assert zenstep("prune")
                    assert zenstep("audit", "--wait", "60").endswith("\nholds\n")
            finally:
                done.set()
                sending.join()
            assert zenstep("audit", "--wait", "60", "--read-log", "--spools-empty").endswith("\nholds\n")
        ledger = system.ledger()
        assert ledger["rejected:unknown_flow"] == sent
        assert ledger["counted"] + ledger.get("rejected:too_old", 0) == 2 * sent
