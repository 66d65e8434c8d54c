"""Clients that take their time, or only sit there: each is cut, and none of them keeps another from being answered."""

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx
import orjson
import pytest

from ingest.body import read_body
from tests.edges import EVENTS, HEARTBEAT, Running, accepted, bearer, view
from tests.wire import Connection, connected, request

BODY = orjson.dumps({"events": [view()]})
IDLE = 2000


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.connections.HEAD_SECONDS", 0.3)
    monkeypatch.setattr("ingest.call.read_body", partial(read_body, seconds=0.3))


def drip(connection: Connection, content: bytes) -> None:
    """Byte by byte until the other side has had enough. Fails where it never has."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for byte in content:
            try:
                connection.send(bytes([byte]))
            except ConnectionError:
                return
            time.sleep(0.01)
    pytest.fail("a client may drip for ever")


@pytest.mark.usefixtures("hasty")
def test_a_head_that_drips_is_cut(running: Running) -> None:
    with connected(running.client.base_url) as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: e\r\n")
        drip(connection, b"a: b\r\n")


@pytest.mark.usefixtures("hasty")
def test_empty_lines_without_end_are_cut(running: Running) -> None:
    with connected(running.client.base_url) as connection:
        drip(connection, b"\r\n")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_a_body_that_drips_is_a_408_and_cut(running: Running, framing: str) -> None:
    key = running.world.keys[0]
    with connected(running.client.base_url) as connection:
        connection.send(f"POST {EVENTS}?key={key} HTTP/1.1\r\nHost: e\r\n{framing}\r\n\r\n".encode())
        drip(connection, b"1\r\nx\r\n")
        status, headers, body = connection.answer()
        assert (status, headers[b"connection"], body) == (408, b"close", b'{"error":"Request timeout"}')


@pytest.mark.usefixtures("hasty")
def test_a_refused_body_that_drips_is_cut(running: Running) -> None:
    with connected(running.client.base_url) as connection:
        connection.send(f"POST {EVENTS} HTTP/1.1\r\nHost: e\r\nContent-Length: 100000\r\n\r\n".encode())
        assert connection.answer()[0] == 401
        drip(connection, b"x")


@contextmanager
def many_files(count: int) -> Iterator[int]:
    """How many connections there may be with both ends in this process: `count`, if the limit can be raised so far."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 500
    given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, given), hard))
    try:
        yield min(count, (max(soft, given) - 500) // 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


SITTERS: dict[str, Callable[[str], bytes]] = {
    "nothing": lambda key: b"",
    "half a head": lambda key: b"GET / HTTP/1.1\r\nHost: e\r\nX: ",
    "half a body": lambda key: request(f"{EVENTS}?key={key}", BODY)[:-1],
}


@pytest.mark.parametrize("sent", SITTERS.values(), ids=SITTERS)
def test_idle_connections_do_not_starve_a_live_one(running: Running, sent: Callable[[str], bytes]) -> None:
    """2,000 of them, or as many as the limit of open files lets be."""
    url: httpx.URL = running.client.base_url
    busy, own = running.world.keys
    with many_files(IDLE) as count, ExitStack() as opened:
        assert count >= 100, "too few files may be open to tell anything"
        for _ in range(count):
            idle = opened.enter_context(socket.create_connection((url.host, url.port or 80), timeout=30))
            idle.sendall(sent(busy))
        for _ in range(5):
            with httpx.Client(base_url=url, timeout=10) as client:
                accepted(client.post(EVENTS, content=BODY, headers=bearer(own)), 1)
                assert client.get(HEARTBEAT, headers=bearer("w" * 32)).status_code == 401
