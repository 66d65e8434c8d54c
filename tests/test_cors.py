"""Pages of other origins: what a browser is told before and with every answer, and what it is never told."""

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import httpx
import orjson
import pytest
from prometheus_client import REGISTRY

from ingest.body import MAX_BODY_BYTES
from ingest.cors import MAX_ORIGIN, answer_headers, answer_lines
from schemas.limits import STRANGERS, Verdict
from service.cycle import written_out
from service.settings import Settings
from tests.edges import EVENTS, HEARTBEAT, SECRET, Running, World, accepted, bearer, edge, make_world, view
from tests.servers.ports import free_port

ORIGIN = "https://shop.example.org"
GOOD = orjson.dumps({"events": [view()]})
LIMITS = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
PATHS = {
    EVENTS: "OPTIONS, POST",
    HEARTBEAT: "GET, HEAD, OPTIONS, POST",
}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    with edge(world) as client:
        yield Running(world, client)


def away() -> World:
    """Nobody listens where its store and its log should be."""
    ports = free_port(), free_port()
    settings = Settings(
        log_url=f"kafka://127.0.0.1:{ports[0]}",
        store_url=f"postgresql://nobody@127.0.0.1:{ports[1]}/none",
        user_hash_secret=SECRET,
    )
    return World(settings, [], ["k" * 32])


def preflight(client: httpx.Client, path: str, origin: str = ORIGIN, **asked: str) -> httpx.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    headers |= {f"Access-Control-Request-{name.title()}": value for name, value in asked.items()}
    return client.options(path, headers=headers)


def readable(answer: httpx.Response, origin: str = ORIGIN) -> bool:
    """Whether a browser lets the page have it, sent with credentials as sendBeacon does."""
    headers = answer.headers
    if headers.get("access-control-allow-origin") != origin:
        return False
    exposed = {name.strip() for name in headers["access-control-expose-headers"].split(",")}
    assert exposed == LIMITS | {"Retry-After", "ETag"}
    assert headers["access-control-allow-credentials"] == "true"
    assert "Origin" in [name.strip() for name in headers["vary"].split(",")]
    return True


@pytest.mark.parametrize(("path", "methods"), PATHS.items())
def test_a_preflight_is_answered_with_the_store_and_the_log_away(path: str, methods: str) -> None:
    with edge(away(), connected=False) as client:
        answer = preflight(client, path, headers="authorization,content-type,content-encoding,if-none-match")
        assert (answer.status_code, answer.content) == (204, b"")
        assert readable(answer)
        assert answer.headers["access-control-allow-methods"] == methods
        assert answer.headers["access-control-max-age"] == "86400"
        allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
        assert {"authorization", "content-type", "content-encoding", "if-none-match"} <= allowed
        assert not any("*" in value for value in answer.headers.values()), "it means nothing with credentials"


def test_a_preflight_costs_nobody_anything(running: Running) -> None:
    """No limit counts it, and no key is looked up for it, be there one or not."""
    lookups = REGISTRY.get_sample_value
    before = [lookups("zenstep_key_lookups_total", {"result": result}) for result in ("found", "unknown", "cached")]
    for _ in range(STRANGERS + 400):
        assert preflight(running.client, f"{EVENTS}?key={running.world.keys[0]}").status_code == 204
    assert before == [
        lookups("zenstep_key_lookups_total", {"result": result}) for result in ("found", "unknown", "cached")
    ]
    answer = running.post({"events": [view()]})
    assert answer.headers["x-ratelimit-remaining"] == "299"
    assert "x-ratelimit-limit" not in preflight(running.client, EVENTS).headers


def test_a_preflight_of_a_path_that_is_none_is_not_found(running: Running) -> None:
    for path in ("/", "/api/v1/nothing", f"{EVENTS}/"):
        answer = preflight(running.client, path)
        assert (answer.status_code, answer.content) == (404, b'{"error":"Not found"}')
        assert readable(answer)


def test_an_edge_in_a_private_network_may_be_called_by_public_pages(running: Running) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Private-Network": "true"}
    answer = running.client.options(EVENTS, headers=asked)
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert "access-control-allow-private-network" not in preflight(running.client, EVENTS).headers


FORM = urlencode({"data": GOOD.decode()}).encode()


@pytest.mark.parametrize(
    ("kind", "content"),
    [("text/plain;charset=UTF-8", GOOD), ("application/x-www-form-urlencoded;charset=UTF-8", FORM)],
    ids=["of a string", "of URLSearchParams"],
)
def test_a_beacon_needs_no_preflight(running: Running, kind: str, content: bytes) -> None:
    """Only these types go without one, and only without a header for the key."""
    headers = {"Origin": ORIGIN, "Content-Type": kind}
    answer = running.client.post(f"{EVENTS}?key={running.world.keys[0]}", content=content, headers=headers)
    accepted(answer, 1)
    assert readable(answer)


def test_a_page_can_read_every_error(running: Running) -> None:
    key, client = bearer(running.world.keys[0]), running.client
    page = {"Origin": ORIGIN}
    found = {
        400: client.post(EVENTS, headers=key | page, content=b"{}"),
        401: client.post(EVENTS, headers=page, content=GOOD),
        404: client.get("/api/v1/nothing", headers=page),
        405: client.put(EVENTS, headers=page),
        413: client.post(EVENTS, headers=key | page, content=b" " * (MAX_BODY_BYTES + 1)),
        415: client.post(EVENTS, headers=key | page | {"Content-Type": "image/png"}, content=GOOD),
        429: [client.get(HEARTBEAT, headers=key | page) for _ in range(11)][-1],
    }
    for status, answer in found.items():
        assert answer.status_code == status
        assert readable(answer), status
        assert {name.lower() for name in LIMITS} <= set(answer.headers), status
    assert "retry-after" in found[429].headers


def test_a_page_can_read_that_the_store_is_away() -> None:
    with edge(away(), connected=False) as client:
        answer = client.post(EVENTS, headers=bearer("k" * 32) | {"Origin": ORIGIN}, content=GOOD)
        assert answer.status_code == 503
        assert readable(answer)
        assert "retry-after" in answer.headers


def test_a_page_can_read_that_the_edge_is_at_fault(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("ingest.decode.decode", fault)
    answer = running.post({"events": [view()]}, headers={"Origin": ORIGIN})
    assert (answer.status_code, answer.content) == (500, b'{"error":"Internal server error"}')
    assert readable(answer)


@pytest.mark.parametrize(
    "origin", ["null", "http://localhost:3000", "capacitor://localhost", "chrome-extension://abcdefgh", "file://"]
)
def test_any_origin_that_browsers_send_is_echoed(running: Running, origin: str) -> None:
    answer = running.post({"events": [view()]}, headers={"Origin": origin})
    accepted(answer, 1)
    assert readable(answer, origin)
    assert readable(preflight(running.client, EVENTS, origin), origin)


def test_without_an_origin_a_cache_is_still_told_what_it_depends_on(running: Running) -> None:
    answer = running.post({"events": [view()]})
    assert answer.headers["vary"] == "Origin"
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "origin",
    [
        b"https://" + b"a" * 2000,
        b"https://a\x7f.example.org",
        b"https://a b",
        b"https://\xc3\xa9.example.org",
        b"https://a.example.org\r\nOrigin: https://b.example.org",
        b"https://a.example.org\tplanted",
        b"",
    ],
    ids=["huge", "control byte", "blank", "not ASCII", "two", "tab", "empty"],
)
@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_an_origin_that_no_browser_sends_is_not_echoed(running: Running, method: str, origin: bytes) -> None:
    status, headers = raw(running, method, origin)
    assert status in (204, 401, 400)
    assert b"access-control-allow-origin" not in headers
    if origin:
        assert origin[:40] not in headers


@pytest.mark.parametrize(
    "origin",
    [
        b"https://a\rPlanted: 1",
        b"https://a\nPlanted: 1",
        b"https://a\r\n Planted: 1",
        b"https://a%0d%0aPlanted: 1",
        b"https://a\x00Planted: 1",
        b"https://a\x0bPlanted: 1",
        b"\xe5\x98\x8a\xe5\x98\x8dPlanted: 1",
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_no_header_can_be_put_into_the_answer(running: Running, method: str, origin: bytes) -> None:
    status, headers = raw(running, method, origin)
    assert status in (204, 401, 400)
    assert b"planted" not in headers


def raw(running: Running, method: str, origin: bytes) -> tuple[int, bytes]:
    """The status and the lower-case headers of the answer to a request that no client library would send."""
    address = urlsplit(str(running.client.base_url))
    request = b"%s %s HTTP/1.1\r\nHost: e\r\nContent-Length: 0\r\nConnection: close\r\nOrigin: %s\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(request % (method.encode(), EVENTS.encode(), origin))
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head = answer.partition(b"\r\n\r\n")[0].lower()
    return int(head.split()[1]), head


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"origin", b"https://a.example")],
        [(b"origin", b"null"), (b"host", b"e")],
        [(b"origin", b"https://a.example"), (b"origin", b"https://b.example")],
        [(b"origin", b"x" * (MAX_ORIGIN + 1))],
        [(b"origin", b"https://a.example\r\nset-cookie: a=b")],
    ],
)
def test_what_goes_out_is_written_beforehand_word_by_word(headers: list[tuple[bytes, bytes]]) -> None:
    expected = b"".join(b"%b: %b\r\n" % header for header in answer_headers(headers))
    assert answer_lines(headers) == answer_lines(headers) == expected
    assert b"set-cookie" not in expected


def test_a_header_with_a_line_break_is_not_written() -> None:
    for broken in (b"a\r\nb: c", b"a\n", b"a\0"):
        with pytest.raises(RuntimeError, match="line break"):
            written_out([(b"vary", b"Origin"), (b"x-other", broken)])


def test_how_a_limit_stands_is_written_word_by_word() -> None:
    verdict = Verdict(300, 17, 1_790_000_060, 0)
    assert verdict.lines() == written_out(verdict.headers())
