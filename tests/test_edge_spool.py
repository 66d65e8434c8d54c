"""The edge with a spool: what happens to requests while the log is away, slow, or back, and while the disk is full."""

import os
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY

from backends.spool import Spool
from schemas.limits import MAX_LIMIT
from service.settings import SettingsError
from tests.edges import (
    HEARTBEAT,
    Running,
    World,
    accepted,
    bearer,
    edge,
    locked,
    make_topics,
    make_world,
    read_envelopes,
    read_heartbeats,
    read_refused,
    unavailable,
    view,
)
from tests.processes import Process, role
from tests.servers.kafka import Kafka
from tests.servers.ports import free_port
from tests.working import until


def make(log_url: str, tmp_path: Path, topics: bool = True, **settings: object) -> World:
    """With a spool, and without limits."""
    store = f"sqlite:///{tmp_path}/store.db"
    world = make_world(log_url, store, topics, spool_path=str(tmp_path / "spool"), **settings)
    for organisation in world.organisations:
        world.catalog().set_limit(organisation, "events", MAX_LIMIT)
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """On a log that is soon too slow."""
    return make(f"sqlite:///{tmp_path}/log.db", tmp_path, produce_timeout=0.2)


def without_topics(world: World, **settings: object) -> World:
    """On the same store and log, whose topics are still to be made: as good as away."""
    prefix = {"topic_prefix": f"t{uuid.uuid4().hex}"}
    return world._replace(settings=replace(world.settings, **prefix | settings))


def sent_id(running: Running, key: int = 0) -> str:
    """The id of an event that a 202 accepted."""
    event = view(id=str(uuid.uuid4()))
    accepted(running.post({"events": [event]}, key), 1)
    return str(event["id"])


def ids_in_log(world: World) -> list[str]:
    return [event.id for envelope in read_envelopes(world) for event in envelope.events]


def spooled() -> float:
    return REGISTRY.get_sample_value("zenstep_spool_events") or 0.0


@contextmanager
def client_of(process: Process, world: World) -> Iterator[Running]:
    with httpx.Client(base_url=process.base, timeout=30) as client:
        yield Running(world, client)


def test_a_log_slower_than_the_timeout_is_no_503_but_the_spool(world: World, tmp_path: Path) -> None:
    with edge(world) as client:
        running = Running(world, client)
        with locked(tmp_path / "log.db"):
            sent = [sent_id(running, key) for key in (0, 1, 0, 1)]
            assert client.post(HEARTBEAT, headers=bearer(world.keys[0])).status_code == 200
            assert spooled() == 5
        until(lambda: spooled() == 0)
        assert set(ids_in_log(world)) == set(sent)  # those whose fate was not known may be there twice
        assert len({beat.id for beat in read_heartbeats(world)}) == 1


def test_the_log_back_takes_live_requests_again(world: World, tmp_path: Path) -> None:
    with edge(world) as client:
        running = Running(world, client)
        with locked(tmp_path / "log.db"):
            sent_id(running)
        before = REGISTRY.get_sample_value("zenstep_events_spooled_total") or 0.0

        def taken_by_the_log() -> bool:
            sent_id(running)
            return spooled() == 0 and REGISTRY.get_sample_value("zenstep_events_spooled_total") == before

        def again() -> bool:
            nonlocal before
            before = REGISTRY.get_sample_value("zenstep_events_spooled_total") or 0.0
            return taken_by_the_log()

        until(again)


def test_an_edge_that_starts_without_the_log_takes_requests(world: World, tmp_path: Path) -> None:
    away = without_topics(world)
    with edge(away, connected=False) as client:
        running = Running(away, client)
        sent = [sent_id(running) for _ in range(20)]
        assert spooled() == 20
        make_topics(away)
        until(lambda: spooled() == 0)
        assert ids_in_log(away) == sent


def test_what_the_spool_holds_is_flushed_by_the_next_edge_in_the_order_it_came(world: World) -> None:
    away = without_topics(world)
    with edge(away, connected=False) as client:
        running = Running(away, client)
        sent = [sent_id(running) for _ in range(50)]
    make_topics(away)
    with edge(away):
        until(lambda: spooled() == 0)
    assert ids_in_log(away) == sent


def test_a_full_spool_is_a_503_and_room_again_a_202(world: World) -> None:
    away = without_topics(world, spool_max_bytes=1024**2)
    large = [view(id=str(uuid.uuid4()), data="x" * 30_000) for _ in range(10)]
    with edge(away, connected=False) as client:
        running = Running(away, client)
        promised = 0
        while not unavailable(answer := running.post({"events": large})):
            accepted(answer, 10)
            promised += 1
            assert promised < 20
        assert promised == 3
        assert unavailable(running.post({"events": large}))
        make_topics(away)
        until(lambda: spooled() == 0)
        accepted(running.post({"events": large}), 10)
    assert Counter(ids_in_log(away)) == {event["id"]: promised + 1 for event in large}


def test_a_disk_that_fails_is_a_503_and_not_a_promise(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    away = without_topics(world)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with edge(away, connected=False) as client:
        running = Running(away, client)
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", fail)
            assert unavailable(running.post({"events": [view()]}))
        kept = sent_id(running)
        make_topics(away)
        until(lambda: spooled() == 0)
    assert ids_in_log(away) == [kept]


def test_requests_of_a_tick_share_an_fsync(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    away = without_topics(world)
    groups: list[int] = []
    append = Spool.append

    def counted(self: Spool, entries: list[object]) -> None:
        groups.append(len(entries))
        append(self, entries)  # type: ignore[arg-type]

    monkeypatch.setattr(Spool, "append", counted)
    with edge(away, connected=False) as client, ThreadPoolExecutor(16) as threads:
        running = Running(away, client)
        sent = list(threads.map(lambda _: sent_id(running), range(400)))
    assert sum(groups) == len(sent) == 400
    assert max(groups) > 1


def test_what_was_refused_is_not_spooled(world: World) -> None:
    """Anybody could fill the disk with it."""
    away = without_topics(world)
    with edge(away, connected=False) as client:
        assert Running(away, client).post({"events": []}).status_code == 400
        until(lambda: (REGISTRY.get_sample_value("zenstep_refused_lost_total", {"reason": "log_away"}) or 0) > 0)
        assert spooled() == 0
        make_topics(away)
    assert read_refused(away) == []


def test_a_spool_that_another_edge_uses_is_one_line_at_the_start(world: World) -> None:
    with edge(world), pytest.raises(SettingsError, match=r"ZENSTEP_SPOOL_PATH: .* is in use"), edge(world):
        pass


def test_ready_while_the_spool_takes_requests_and_not_when_nothing_does(tmp_path: Path) -> None:
    world = make(f"kafka://127.0.0.1:{free_port()}", tmp_path, topics=False, spool_max_bytes=1024**2)
    with role("edge", world.environment(), tmp_path) as process, client_of(process, world) as running:
        ready = httpx.get(f"{process.admin}/readyz", timeout=10)
        assert (ready.status_code, list(ready.json()["problems"])) == (200, ["log"])
        until(lambda: unavailable(running.post({"events": [view(data="x" * 30_000)]})))
        until(lambda: httpx.get(f"{process.admin}/readyz", timeout=10).status_code == 503)
        problems = httpx.get(f"{process.admin}/readyz", timeout=10).json()["problems"]
        assert set(problems) == {"log", "spool"}
        assert "full" in problems["spool"]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_kafka_away_the_edge_ended_and_started_again_nothing_promised_is_lost(
    end: signal.Signals, private_kafka: Kafka, tmp_path: Path
) -> None:
    """Told to end it does so in a bound with exit code 0 and leaves its spool; killed it leaves it too."""
    world = make(f"kafka://{private_kafka.servers}", tmp_path, produce_timeout=1)
    promised: list[str] = []
    with role("edge", world.environment(), tmp_path) as process, client_of(process, world) as running:
        promised += [sent_id(running) for _ in range(5)]
        private_kafka.kill()
        with ThreadPoolExecutor(8) as threads:
            promised += threads.map(lambda n: sent_id(running, n % 2), range(200))
        if end == signal.SIGTERM:
            assert process.terminate() == 0
        else:
            process.kill()
    private_kafka.start()
    with role("edge", world.environment(), tmp_path) as process, client_of(process, world) as running:
        until(lambda: "zenstep_spool_events 0.0" in httpx.get(f"{process.admin}/metrics").text)
        promised += [sent_id(running) for _ in range(5)]
    assert set(ids_in_log(world)) == set(promised)


def test_kafka_gone_and_back_under_load_every_202_is_in_the_log(private_kafka: Kafka, tmp_path: Path) -> None:
    world = make(f"kafka://{private_kafka.servers}", tmp_path, produce_timeout=1)
    with role("edge", world.environment(), tmp_path) as process, ThreadPoolExecutor(4) as threads:
        ended = False

        def load(_: int) -> list[str]:
            durable: list[str] = []
            with client_of(process, world) as running:
                while not ended:
                    durable.append(sent_id(running))
            return durable

        def metric(name: str) -> float:
            text = httpx.get(f"{process.admin}/metrics").text
            return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))

        loads = [threads.submit(load, n) for n in range(4)]
        try:
            until(lambda: metric("zenstep_events_accepted_total") > 100)
            private_kafka.kill()
            until(lambda: metric("zenstep_events_spooled_total") > 500)
            private_kafka.start()
            until(lambda: metric("zenstep_events_flushed_total") >= 500 and metric("zenstep_spool_events") == 0)
            acknowledged = metric("zenstep_records_acknowledged_total")
            until(lambda: metric("zenstep_records_acknowledged_total") > acknowledged + 100)
        finally:
            ended = True
        promised = [identifier for one in loads for identifier in one.result()]
        until(lambda: metric("zenstep_spool_events") == 0)
    assert set(promised) <= set(ids_in_log(world))
