"""The edge's limits over real HTTP: alone, together through a Redis, and while that is away."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import redis
from prometheus_client import REGISTRY

import backends.limits.redis
from backends.limits.redis import PREFIX
from ingest.body import MAX_BODY_BYTES
from ingest.keys import KeyCache
from schemas.limits import LIMITS, STRANGERS
from tests.edges import EVENTS, HEARTBEAT, Running, World, bearer, edge, make_world, view
from tests.limits import TOLD, over, standing
from tests.servers.redis import Redis
from tests.working import until

GOOD = orjson.dumps({"events": [view()]})
FLOWS = "/api/v1/flows"


@pytest.fixture
def own_world(tmp_path: Path) -> World:
    """Each with a secret of its own, so that its clients are nobody else's in a Redis that tests share."""
    secret = f"a secret of this test {uuid.uuid4()}"
    return make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db", user_hash_secret=secret)


@pytest.fixture
def running(own_world: World) -> Iterator[Running]:
    with edge(own_world) as client:
        yield Running(own_world, client)


def sharing(world: World, url: str) -> World:
    return world._replace(settings=replace(world.settings, limits_url=url))


@contextmanager
def edges(world: World, url: str, count: int) -> Iterator[list[httpx.Client]]:
    """So many edges that count in this Redis."""
    with ExitStack() as stack:
        yield [stack.enter_context(edge(sharing(world, url))) for _ in range(count)]


def test_every_answer_says_how_its_limit_stands(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    key, client = bearer(running.world.keys[0]), running.client
    post = partial(client.post, EVENTS, headers=key)
    events, flows = LIMITS["events"], LIMITS["flows"]
    assert standing(post(content=GOOD)) == (202, events, 299)
    assert standing(post(content=b"{")) == (400, events, 298)
    assert standing(post(content=b" " * (MAX_BODY_BYTES + 1))) == (413, events, 297)
    unsupported = client.post(EVENTS, content=GOOD, headers=key | {"Content-Type": "application/xml"})
    assert standing(unsupported) == (415, events, 296)
    assert standing(client.get(HEARTBEAT, headers=key)) == (200, LIMITS["heartbeat"], 9)
    fresh = client.get(FLOWS, headers=key)
    assert standing(fresh) == (200, flows, 59)
    unchanged = client.get(FLOWS, headers=key | {"If-None-Match": fresh.headers["etag"]})
    assert standing(unchanged) == (304, flows, 58)
    assert standing(client.get(f"{FLOWS}/{uuid.uuid4()}", headers=key)) == (404, flows, 57)
    assert standing(client.get(f"{FLOWS}/no-uuid", headers=key)) == (400, flows, 56)
    assert standing(client.post(EVENTS, content=GOOD)) == (401, STRANGERS, 59)
    assert standing(client.get("/nowhere")) == (404, STRANGERS, 58)
    assert standing(client.put(EVENTS)) == (405, STRANGERS, 57)

    def fault(*arguments: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("ingest.decode.envelope", fault)
    assert standing(post(content=GOOD)) == (500, events, 295)
    while not over(answer := client.get(HEARTBEAT, headers=key)):
        assert answer.status_code == 200


def test_without_its_log_an_edge_still_says_how_its_limit_stands(tmp_path: Path) -> None:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db", topics=False)
    with edge(world, connected=False) as client:
        answer = client.post(EVENTS, content=GOOD, headers=bearer(world.keys[0]))
        assert standing(answer) == (503, 300, 299)
        assert len(answer.headers.get_list("retry-after")) == 1


def test_a_preflight_counts_for_nobody_and_carries_no_limit(running: Running) -> None:
    for _ in range(STRANGERS + 1):
        answer = running.client.options(EVENTS)
        assert (answer.status_code, set(TOLD) & set(answer.headers)) == (204, set())
    assert standing(running.client.post(EVENTS)) == (401, STRANGERS, 59)


def test_organisations_and_buckets_are_counted_apart_and_the_keys_of_one_together(running: Running) -> None:
    mine, theirs = (bearer(key) for key in running.world.keys)
    second = bearer(running.world.catalog().create_key(running.world.organisations[0], "staging"))
    assert [standing(running.client.get(HEARTBEAT, headers=mine))[2] for _ in range(6)] == [9, 8, 7, 6, 5, 4]
    assert [standing(running.client.get(HEARTBEAT, headers=second))[2] for _ in range(4)] == [3, 2, 1, 0]
    assert over(running.client.post(HEARTBEAT, headers=mine))
    assert standing(running.client.head(HEARTBEAT, headers=second)) == (429, 10, 0)
    assert standing(running.client.get(HEARTBEAT, headers=theirs)) == (200, 10, 9)
    assert standing(running.client.get(FLOWS, headers=mine)) == (200, 60, 59)


def test_edges_with_one_redis_admit_three_hundred_together(
    own_world: World, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.limits.redis, "ANSWER_SECONDS", 20.0)  # a busy machine is no outage
    headers = bearer(own_world.keys[0])
    with edges(own_world, redis_url, 2) as clients, ThreadPoolExecutor(8) as senders:
        answers = list(senders.map(lambda n: clients[n % 2].post(EVENTS, content=GOOD, headers=headers), range(400)))
    refused = [answer for answer in answers if over(answer)]
    admitted = [standing(answer) for answer in answers if answer.status_code == 202]
    assert (len(admitted), len(refused)) == (300, 100)
    assert sorted(left for _, _, left in admitted) == list(range(300))


def test_failed_authentications_are_counted_by_a_digest_of_the_address_over_all_edges(
    own_world: World, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.limits.redis, "ANSWER_SECONDS", 20.0)
    with edges(own_world, redis_url, 2) as clients:
        found = [clients[n % 2].post(EVENTS, content=GOOD, headers=bearer("w" * 32)) for n in range(62)]
        assert [standing(answer) for answer in found[:60]] == [(401, 60, left) for left in range(59, -1, -1)]
        assert over(found[60]) and over(found[61])
        assert clients[0].post(EVENTS, content=GOOD, headers=bearer(own_world.keys[0])).status_code == 202
        assert over(clients[1].get("/nowhere"))
    with redis.Redis.from_url(redis_url) as client:
        keys = [key.decode() for key in client.scan_iter()]
    assert all(key.startswith(PREFIX) for key in keys)
    assert [key for key in keys if "127.0.0.1" in key or own_world.keys[0] in key or "w" * 32 in key] == []


def test_a_redis_that_is_killed_and_comes_back_is_noticed_by_no_client(
    own_world: World, private_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.limits.redis, "ANSWER_SECONDS", 5.0)
    own_world.catalog().set_limit(own_world.organisations[0], "events", 1_000_000)
    own_world.catalog().set_limit(own_world.organisations[1], "heartbeat", 5)
    before, over_ = away(), threading.Event()
    with edges(own_world, private_redis.url, 1) as [client], ThreadPoolExecutor(4) as senders:

        def send() -> list[int]:
            found = []
            while not over_.is_set():
                found.append(client.post(EVENTS, content=GOOD, headers=bearer(own_world.keys[0])).status_code)
            return found

        try:
            sending = [senders.submit(send) for _ in range(4)]
            for _ in range(2):
                beats = [standing(client.get(HEARTBEAT, headers=bearer(own_world.keys[1])))[2] for _ in range(3)]
                assert beats == [4, 3, 2]
                private_redis.kill()
                # The edge goes on with the counts it knows.
                beats = [standing(client.get(HEARTBEAT, headers=bearer(own_world.keys[1])))[2] for _ in range(2)]
                assert beats == [1, 0]
                assert over(client.get(HEARTBEAT, headers=bearer(own_world.keys[1])))
                assert away() == before + 1
                private_redis.start()
                until(lambda: away() == before)
        finally:
            over_.set()
        statuses = [status for one in sending for status in one.result()]
    assert set(statuses) == {202}


def away() -> float:
    return REGISTRY.get_sample_value("zenstep_limits_away") or 0.0


def test_an_edge_whose_redis_was_never_there_serves_all_the_same(own_world: World) -> None:
    with edges(own_world, "redis://127.0.0.1:1/0", 1) as [client]:
        for left in range(9, -1, -1):
            assert standing(client.get(HEARTBEAT, headers=bearer(own_world.keys[0]))) == (200, 10, left)
        assert over(client.get(HEARTBEAT, headers=bearer(own_world.keys[0])))
        assert away() > 0
    assert away() == 0


def test_behind_a_trusted_proxy_clients_are_counted_apart(own_world: World) -> None:
    settings = replace(own_world.settings, trusted_proxies="127.0.0.0/8")
    with edge(own_world._replace(settings=settings)) as client:
        for left in (59, 58):
            for address in ("203.0.113.9", "203.0.113.10"):
                headers = {"X-Forwarded-For": f"198.51.100.{left}, {address}"}
                assert standing(client.post(EVENTS, headers=headers)) == (401, 60, left)


def test_an_edge_follows_a_changed_limit(own_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.main.KeyCache", partial(KeyCache, fresh=0.05))  # instead of 20 s
    catalog, organisation = own_world.catalog(), own_world.organisations[0]
    with edge(own_world) as client:

        def limit() -> int:
            return standing(client.get(FLOWS, headers=bearer(own_world.keys[0])))[1]

        assert limit() == 60
        for per_minute, told in ((10_000, 10_000), (20_000, 20_000), (None, 60)):
            catalog.set_limit(organisation, "flows", per_minute)
            until(lambda told=told: limit() == told)  # type: ignore[misc]
