"""What the edge takes, over real HTTP: the answers to the byte, what is then in the log, and what a browser may do."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from ingest.body import MAX_BODY_BYTES
from ingest.decode import UserHasher
from schemas import records
from schemas.ids import partition_of, uuid7_ms
from tests.edges import (
    EVENTS,
    FLOW,
    HEARTBEAT,
    PARTITIONS,
    SECRET,
    UNAUTHORIZED,
    Running,
    accepted,
    bearer,
    edge,
    make_world,
    read_envelopes,
    read_heartbeats,
    read_records,
    view,
)


@pytest.fixture
def running(log_url: str, tmp_path: Path) -> Iterator[Running]:
    world = make_world(log_url, f"sqlite:///{tmp_path}/store.db")
    with edge(world) as client:
        yield Running(world, client)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Running]:
    """Where the log does not matter."""
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    with edge(world) as client:
        yield Running(world, client)


def test_a_batch_is_one_line_of_the_organisation_partition(running: Running) -> None:
    before = time.time_ns() // 1_000_000
    batch = [
        view(id="AAAAAAAA-0000-4000-8000-00000000000A", flowId=FLOW.upper(), userId="ada@example.org"),
        {"eventType": "custom", "name": "bought", "userId": "ada@example.org", "data": {"seats": 3}},
        view(url="https://app.example.org/page?token=planted#planted", timestamp="2026-03-01T12:00:00Z"),
    ]
    accepted(running.post({"events": batch}), 3)
    after = time.time_ns() // 1_000_000
    organisation = running.world.organisations[0]
    [record] = read_records(running.world, running.world.topics.events)
    assert record.partition == partition_of(organisation, PARTITIONS)
    assert b"\n" not in record.value
    assert b"ada@" not in record.value  # a random id may have these letters
    assert b"planted" not in record.value
    envelope = records.decode(record.value)
    assert isinstance(envelope, records.Envelope)
    assert (envelope.v, envelope.org, envelope.env) == (1, organisation, "production")
    assert before <= envelope.received <= after
    first, second, third = envelope.events
    assert (first.id, first.flow) == ("aaaaaaaa-0000-4000-8000-00000000000a", FLOW)
    assert uuid7_ms(second.id) == uuid7_ms(third.id) == envelope.received
    assert first.user == second.user == UserHasher(SECRET).hash(organisation, "ada@example.org")
    assert (second.type, second.name, bytes(second.data)) == ("custom", "bought", b'{"seats":3}')  # type: ignore[arg-type]
    assert (third.url, third.time) == ("https://app.example.org/page", 1_772_366_400_000)


def test_one_user_is_not_the_same_in_two_organisations(running: Running) -> None:
    for key in (0, 1):
        accepted(running.post({"events": [view(userId="ada@example.org")]}, key), 1)
    users = {envelope.org: envelope.events[0].user for envelope in read_envelopes(running.world)}
    assert sorted(users) == sorted(running.world.organisations)
    assert len(set(users.values())) == 2


def test_every_way_of_sending_the_key_and_the_body_is_taken(running: Running) -> None:
    key, other = running.world.keys
    body = orjson.dumps({"events": [view()]})
    ways: list[tuple[str, dict[str, str]]] = [
        ("", {"Authorization": f"Bearer {key}"}),
        ("", {"Authorization": f"bearer {key}", "Content-Type": "application/json; charset=utf-8"}),
        ("", {"Authorization": f"BEARER {key}", "Content-Type": "text/plain"}),
        (f"?key={key}", {"Content-Type": "text/plain;charset=UTF-8"}),  # navigator.sendBeacon(url, string)
        (f"?a=b&key={key}", {}),
        (f"?key={other}", {"Authorization": f"Bearer {key}"}),
        ("?key=nonsense", {"Authorization": f"Bearer {key}"}),
    ]
    for query, headers in ways:
        accepted(running.client.post(EVENTS + query, content=body, headers=headers), 1)
    accepted(running.client.post(f"{EVENTS}?key={key}", content=iter([body[:9], body[9:]])), 1)
    envelopes = read_envelopes(running.world)
    assert [envelope.org for envelope in envelopes] == [running.world.organisations[0]] * (len(ways) + 1)


def test_a_batch_of_fifty_and_a_body_of_the_greatest_size_are_taken(running: Running) -> None:
    accepted(running.post({"events": [view(data="x" * 10_000)] * 50}), 50)
    body = orjson.dumps({"events": [view()]})
    accepted(running.post(body + b" " * (MAX_BODY_BYTES - len(body))), 1)
    assert sorted(len(envelope.events) for envelope in read_envelopes(running.world)) == [1, 50]


def test_a_heartbeat_is_in_the_log_with_the_host_of_the_page(running: Running) -> None:
    key = running.world.keys[0]
    requests = [
        ("GET", HEARTBEAT, bearer(key) | {"Origin": "https://app.example.org:8443"}),
        ("POST", f"{HEARTBEAT}?key={key}", {"Referer": "https://www.example.org/page?token=planted"}),
        ("GET", f"{HEARTBEAT}?key={key}", {"Origin": "null"}),
        ("POST", HEARTBEAT, bearer(key)),
    ]
    for method, url, headers in requests:
        answer = running.client.request(method, url, headers=headers)
        assert (answer.status_code, answer.content) == (200, b'{"ok":true}')
    found = read_heartbeats(running.world)
    assert [beat.org for beat in found] == [running.world.organisations[0]] * 4
    assert [beat.host for beat in found] == ["app.example.org", "www.example.org", None, None]
    assert all(uuid7_ms(beat.id) == beat.received for beat in found)
    [first, *_] = read_records(running.world, running.world.topics.heartbeats)
    assert first.partition == partition_of(running.world.organisations[0], PARTITIONS)


def test_requests_at_the_same_time_each_have_their_line(running: Running) -> None:
    ids = [f"00000000-0000-4000-8000-{n:012}" for n in range(200)]
    with ThreadPoolExecutor(16) as threads:
        answers = threads.map(lambda n: running.post({"events": [view(id=ids[n])]}, n % 2), range(len(ids)))
        for answer in answers:
            accepted(answer, 1)
    envelopes = read_envelopes(running.world)
    assert sorted(event.id for envelope in envelopes for event in envelope.events) == ids


def test_keys_are_looked_up_in_postgresql(postgres_url: str, tmp_path: Path) -> None:
    world = make_world(f"sqlite:///{tmp_path}/log.db", postgres_url)
    with edge(world) as client:
        running = Running(world, client)
        accepted(running.post({"events": [view()]}, 1), 1)
        unknown = client.post(EVENTS, headers=bearer("u" * 32), content=b"{}")
        assert (unknown.status_code, unknown.content) == (401, UNAUTHORIZED)
    assert [envelope.org for envelope in read_envelopes(world)] == [world.organisations[1]]


@pytest.mark.parametrize("status", [202, 400, 401, 404, 405, 413, 415])
def test_a_page_of_any_origin_can_read_every_answer(on_sqlite: Running, status: int) -> None:
    key, origin = on_sqlite.world.keys[0], {"Origin": "https://shop.example.org"}
    requests: dict[int, tuple[str, str, bytes, dict[str, str]]] = {
        202: ("POST", EVENTS, orjson.dumps({"events": [view()]}), bearer(key)),
        400: ("POST", EVENTS, b"{}", bearer(key)),
        401: ("POST", EVENTS, b"{}", {}),
        404: ("GET", "/nowhere", b"", {}),
        405: ("PUT", EVENTS, b"{}", {}),
        413: ("POST", EVENTS, b" " * (MAX_BODY_BYTES + 1), bearer(key)),
        415: ("POST", EVENTS, b"{}", bearer(key) | {"Content-Type": "image/png"}),
    }
    method, path, content, headers = requests[status]
    answer = on_sqlite.client.request(method, path, content=content, headers=headers | origin)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "https://shop.example.org"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["vary"] == "Origin"
    assert "Retry-After" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(("path", "methods"), [(EVENTS, "OPTIONS, POST"), (HEARTBEAT, "GET, HEAD, OPTIONS, POST")])
def test_a_browser_is_allowed_to_send_the_key_in_a_header(on_sqlite: Running, path: str, methods: str) -> None:
    asked = {
        "Origin": "https://shop.example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = on_sqlite.client.options(path, headers=asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "https://shop.example.org"
    assert answer.headers["access-control-allow-methods"] == methods
    allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert {"authorization", "content-type"} <= allowed
    assert answer.headers["access-control-max-age"] == "86400"
    assert "content-length" not in answer.headers


def test_no_answer_says_what_serves_it(on_sqlite: Running) -> None:
    for path in (EVENTS, "/nowhere"):
        answer = on_sqlite.client.post(path, content=b"{}")
        assert not {"server", "x-powered-by", "set-cookie"} & set(answer.headers)
        assert not [name for name in ("uvicorn", "starlette", "python") if name in str(answer.headers).lower()]


def test_a_fault_is_a_500_that_tells_nothing(on_sqlite: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*arguments: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("ingest.decode.envelope", fault)
    answer = on_sqlite.post({"events": [view()]})
    assert (answer.status_code, answer.content) == (500, b'{"error":"Internal server error"}')
