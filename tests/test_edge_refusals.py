"""What the edge refuses, over real HTTP: each answer to the byte as documented, and nothing of it in the log."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from ingest.body import MAX_BODY_BYTES
from tests.edges import (
    EVENTS,
    HEARTBEAT,
    UNAUTHORIZED,
    Running,
    accepted,
    bearer,
    edge,
    make_world,
    read_envelopes,
    read_heartbeats,
    view,
)

ROUTES = [("POST", EVENTS), ("GET", HEARTBEAT), ("POST", HEARTBEAT)]
GOOD = orjson.dumps({"events": [view()]})
LARGE = GOOD + b" " * MAX_BODY_BYTES


class Bad(NamedTuple):
    """A request, and the answer to it."""

    status: int
    answer: bytes
    method: str
    url: str
    headers: dict[str, str] | None = None
    content: bytes | list[bytes] = b""


@pytest.fixture
def running(log_url: str, tmp_path: Path) -> Iterator[Running]:
    world = make_world(log_url, f"sqlite:///{tmp_path}/store.db")
    with edge(world) as client:
        yield Running(world, client)


def hold(running: Running, bad: list[Bad]) -> None:
    """Sends them all, then one good request; that one alone is in the log."""
    for one in bad:
        content = iter(one.content) if isinstance(one.content, list) else one.content
        answer = running.client.request(one.method, one.url, headers=one.headers, content=content)
        assert (answer.status_code, answer.content) == (one.status, one.answer), one
        assert answer.headers["content-type"] == "application/json"
    accepted(running.post({"events": [view(sessionId="the good one")]}), 1)
    [envelope] = read_envelopes(running.world)
    assert [event.session for event in envelope.events] == ["the good one"]
    assert read_heartbeats(running.world) == []


@pytest.mark.parametrize(("method", "route"), ROUTES)  # an edge each: it takes 60 wrong keys a minute of one client
def test_a_request_without_a_good_key_is_unauthorized_whatever_the_cause(
    running: Running, method: str, route: str
) -> None:
    key = running.world.keys[0]
    catalog = running.world.catalog()
    revoked = catalog.create_key(running.world.organisations[0])
    assert catalog.revoke_key(revoked) == 1
    wrong = [revoked, "w" * 32, key[:-1], key + "x", key[:-1] + "-", "a.b.c"]
    headers = [
        {"Authorization": value} for value in ("", "Bearer", f"Basic {key}", key, *(f"Bearer {w}" for w in wrong))
    ]
    hold(
        running,
        [
            Bad(401, UNAUTHORIZED, method, url, given, GOOD if method == "POST" else b"")
            for url, given in [
                (route, {}),
                *((f"{route}?key={value}", {}) for value in ["", *wrong]),
                *((route, header) for header in headers),
                *((f"{route}?key={key}", header) for header in headers),  # the header wins
            ]
        ],
    )


def test_a_bad_body_is_refused_with_every_bad_field(running: Running) -> None:
    def invalid(body: Any, *details: tuple[str, str]) -> Bad:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        listed = [{"path": path, "message": message} for path, message in details]
        answer = orjson.dumps({"error": "Validation failed", "details": listed})
        return Bad(400, answer, "POST", EVENTS, bearer(running.world.keys[0]), content)

    hold(
        running,
        [
            invalid(b"", ("", "Malformed JSON")),
            invalid(GOOD[:-1], ("", "Malformed JSON")),
            invalid(GOOD.replace(b"s-1", b"s\xff1"), ("", "Malformed JSON")),
            invalid(b'"events"', ("", "Expected an object")),
            invalid([view(), view(eventType="click")], ("events[1].eventType", "Invalid enum value")),
            invalid(view(eventType="click"), ("events[0].eventType", "Invalid enum value")),
            invalid({}, ("events", "Required")),
            invalid({"events": []}, ("events", "Expected 1 to 50 events")),
            invalid({"events": [view()] * 51}, ("events", "Expected 1 to 50 events")),
            invalid({"events": [view(eventType="click")]}, ("events[0].eventType", "Invalid enum value")),
            invalid({"events": [view(), {"eventType": "skip"}]}, ("events[1].flowId", "Required")),
            invalid({"events": [{"eventType": "custom"}]}, ("events[0].name", "Required")),
            invalid({"events": [view(data="x" * 33 * 1024)]}, ("events[0]", "Larger than 32768 bytes")),
            invalid(
                {"events": [view(), {"eventType": "click", "flowId": "tour", "stepId": 1, "id": "one"}]},
                ("events[1].eventType", "Invalid enum value"),
                ("events[1].id", "Expected a UUID"),
                ("events[1].flowId", "Expected a UUID"),
                ("events[1].stepId", "Expected a UUID"),
            ),
        ],
    )


def test_a_body_too_large_or_of_another_type_is_refused(running: Running) -> None:
    key = bearer(running.world.keys[0])
    too_large, unsupported = b'{"error":"Payload too large"}', b'{"error":"Unsupported media type"}'
    chunked: list[bytes] = [LARGE[:1000], LARGE[1000:]]
    hold(
        running,
        [
            Bad(413, too_large, "POST", EVENTS, key, LARGE),
            Bad(413, too_large, "POST", EVENTS, key, chunked),
            Bad(415, unsupported, "POST", EVENTS, key | {"Content-Type": "application/xml"}, GOOD),
            Bad(415, unsupported, "POST", EVENTS, key | {"Content-Encoding": "br"}, GOOD),
        ],
    )


def test_a_path_or_method_that_is_not_documented_is_refused(running: Running) -> None:
    key = bearer(running.world.keys[0])
    not_found, not_allowed = b'{"error":"Not found"}', b'{"error":"Method not allowed"}'
    paths = ["/", "/api/v1", "/api/v1/event", f"{EVENTS}/", "/api/v2/events", "/livez", "/metrics", "/%2e%2e/events"]
    allowed = {EVENTS: "OPTIONS, POST", HEARTBEAT: "GET, HEAD, OPTIONS, POST"}
    hold(
        running,
        [Bad(404, not_found, method, path, key) for path in paths for method in ("GET", "POST")]
        + [Bad(405, not_allowed, method, path, key) for path in allowed for method in ("PUT", "PATCH", "DELETE")]
        + [Bad(405, not_allowed, "GET", EVENTS, key)],
    )
    for path, allow in allowed.items():
        assert running.client.put(path).headers["allow"] == allow
    assert running.client.head(EVENTS).status_code == 405
