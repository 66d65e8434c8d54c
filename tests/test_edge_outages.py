"""The edge while its log or its store is away, slow, or back again, and while it is told to end."""

import signal
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import psycopg
import pytest

from ingest.keys import KeyCache
from schemas.limits import MAX_LIMIT
from tests.edges import (
    EVENTS,
    HEARTBEAT,
    Running,
    accepted,
    bearer,
    edge,
    locked,
    make_topics,
    make_world,
    read_envelopes,
    unavailable,
    view,
)
from tests.processes import role
from tests.servers.kafka import Kafka
from tests.servers.ports import free_port
from tests.working import until


def send(running: Running) -> httpx.Response:
    return running.post({"events": [view(id=str(uuid.uuid4()))]})


@pytest.mark.parametrize("kind", ["kafka", "sqlite"])
def test_while_the_log_is_away_everything_is_a_503(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    urls = {"kafka": f"kafka://127.0.0.1:{free_port()}", "sqlite": f"sqlite:///{tmp_path}/a file/log.db"}
    world = make_world(urls[kind], f"sqlite:///{tmp_path}/store.db", topics=False)
    with edge(world, connected=False) as client:
        running = Running(world, client)
        assert unavailable(send(running))
        assert unavailable(client.get(HEARTBEAT, headers=bearer(world.keys[0])))
        assert client.post(EVENTS, json={"events": [view()]}).status_code == 401
        assert running.post({"events": []}).status_code == 400


def test_topics_that_are_made_later_are_found(log_url: str, tmp_path: Path) -> None:
    world = make_world(log_url, f"sqlite:///{tmp_path}/store.db", topics=False)
    with edge(world, connected=False) as client:
        running = Running(world, client)
        assert unavailable(send(running))
        make_topics(world)
        until(lambda: not unavailable(send(running)))
        accepted(send(running), 1)
    assert len(read_envelopes(world)) == 2


def test_a_log_slower_than_the_timeout_is_a_503(tmp_path: Path) -> None:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db", produce_timeout=0.2)
    with edge(world) as client:
        running = Running(world, client)
        with locked(tmp_path / "log.db"):
            assert unavailable(send(running))
            assert unavailable(client.post(HEARTBEAT, headers=bearer(world.keys[0])))
        until(lambda: not unavailable(send(running)))


def test_kafka_stopped_and_started_again_needs_no_restart_of_the_edge(
    private_kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was answered with a 202 is in the log; what was a 503 may or may not be, and is safe to send again."""
    monkeypatch.setattr("ingest.outbound.REFRESH_SECONDS", 3600.0)  # what has failed is asked for at once
    world = make_world(f"kafka://{private_kafka.servers}", f"sqlite:///{tmp_path}/store.db", produce_timeout=3)
    world.catalog().set_limit(world.organisations[0], "events", MAX_LIMIT)  # a 503 comes at once, and so the next try
    durable: list[str] = []

    def try_one() -> bool:
        event = view(id=str(uuid.uuid4()))
        answer = running.post({"events": [event]})
        if unavailable(answer):
            return False
        accepted(answer, 1)
        durable.append(event["id"])
        return True

    with edge(world) as client:
        running = Running(world, client)
        assert try_one()
        private_kafka.stop()
        until(lambda: not try_one())
        assert not try_one()
        private_kafka.start()
        until(try_one)
        assert try_one()
    in_log = [event.id for envelope in read_envelopes(world) for event in envelope.events]
    assert len(in_log) == len(set(in_log))
    assert set(durable) <= set(in_log)


def test_while_the_store_is_away_a_known_key_goes_on(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With keys that are never fresh, so that the store is asked each time."""
    monkeypatch.setattr("ingest.main.KeyCache", partial(KeyCache, fresh=0.0, pause=0.0))
    world = make_world(f"sqlite:///{tmp_path}/log.db", postgres_url)
    server, _, database = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection, edge(world) as client:
        running = Running(world, client)

        def open_for_clients(is_open: bool) -> None:
            connection.execute(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS {is_open}')
            if not is_open:
                query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                connection.execute(query, (database,))

        accepted(send(running), 1)
        open_for_clients(False)
        accepted(send(running), 1)
        assert unavailable(client.post(EVENTS, json={"events": [view()]}, headers=bearer(world.keys[1])))
        assert unavailable(client.get(HEARTBEAT, headers=bearer("u" * 32)))
        open_for_clients(True)
        until(lambda: client.get(HEARTBEAT, headers=bearer("u" * 32)).status_code == 401)
        accepted(running.post({"events": [view()]}, 1), 1)
    assert [envelope.org for envelope in read_envelopes(world)].count(world.organisations[0]) == 2


def test_a_store_without_tables_is_a_503_and_no_fault(postgres_url: str, tmp_path: Path) -> None:
    world = make_world(f"sqlite:///{tmp_path}/log.db", postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection, edge(world) as client:
        connection.execute("ALTER TABLE snippet_keys RENAME TO elsewhere")
        assert unavailable(send(Running(world, client)))


def test_told_to_end_it_answers_what_is_in_flight_and_takes_no_more(tmp_path: Path) -> None:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    ids = [f"00000000-0000-4000-8000-{n:012}" for n in range(8)]

    with role("edge", world.environment(), tmp_path) as process, ThreadPoolExecutor(len(ids)) as threads:

        def post(identifier: str) -> httpx.Response:
            body = {"events": [view(id=identifier)]}
            return httpx.post(process.base + EVENTS, json=body, headers=bearer(world.keys[0]), timeout=30)

        def received() -> bool:
            return f"zenstep_events_received_total {len(ids)}.0" in httpx.get(f"{process.admin}/metrics").text

        with locked(tmp_path / "log.db"):
            answers = [threads.submit(post, identifier) for identifier in ids]
            until(received)
            process.process.send_signal(signal.SIGTERM)
            until(lambda: "draining" in httpx.get(f"{process.admin}/readyz").json()["problems"])
            ready = httpx.get(f"{process.admin}/readyz")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            with pytest.raises(httpx.TransportError):
                post(ids[0])
            assert not any(answer.done() for answer in answers)
        for answer in answers:
            accepted(answer.result(), 1)
        assert process.process.wait(30) == 0
    assert sorted(event.id for envelope in read_envelopes(world) for event in envelope.events) == ids


def test_told_to_end_under_load_every_202_is_in_the_log(kafka_servers: str, tmp_path: Path) -> None:
    world = make_world(f"kafka://{kafka_servers}", f"sqlite:///{tmp_path}/store.db")
    with role("edge", world.environment(), tmp_path) as process:

        def load(_: int) -> list[str]:
            """Sends until the edge is gone; returns what was answered with a 202."""
            durable: list[str] = []
            with httpx.Client(base_url=process.base, headers=bearer(world.keys[0]), timeout=30) as client:
                while True:
                    event = view(id=str(uuid.uuid4()))
                    try:
                        answer = client.post(EVENTS, json={"events": [event]})
                    except httpx.TransportError:
                        return durable
                    if not unavailable(answer):
                        accepted(answer, 1)
                        durable.append(event["id"])

        with ThreadPoolExecutor(8) as threads:
            loads = [threads.submit(load, n) for n in range(8)]
            until(lambda: "zenstep_events_accepted_total 0.0" not in httpx.get(f"{process.admin}/metrics").text)
            assert process.terminate() == 0
            sent = [identifier for one in loads for identifier in one.result()]
    assert sent
    assert set(sent) <= {event.id for envelope in read_envelopes(world) for event in envelope.events}
