"""The edge's connections, byte by byte: what is left unread, what never ends, what is no HTTP, and who goes away."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import orjson
import pytest
from prometheus_client import REGISTRY

from ingest.body import MAX_BODY_BYTES, read_body
from service.connections import MAX_HEAD_BYTES
from tests.edges import EVENTS, HEARTBEAT, UNAUTHORIZED, Running, edge, make_world, read_envelopes, view
from tests.working import until

BODY = orjson.dumps({"events": [view()]})


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    with edge(world) as client:
        yield Running(world, client)


class Connection:
    """One TCP connection, and the answers that come over it."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._read = b""

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """The next answer: status, headers, body. Raises ConnectionError where there is none."""
        while b"\r\n\r\n" not in self._read:
            self._receive()
        head, _, rest = self._read.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        self._read = rest
        length = int(headers.get(b"content-length", b"0"))
        while len(self._read) < length:
            self._receive()
        body, self._read = self._read[:length], self._read[length:]
        return int(lines[0].split()[1]), headers, body

    def closed(self) -> bool:
        """Waits for the other side to close, without another byte."""
        try:
            return self._socket.recv(1) == b""
        except ConnectionError:
            return True

    def _receive(self) -> None:
        received = self._socket.recv(65536)
        if not received:
            raise ConnectionError("closed before the answer")
        self._read += received


@contextmanager
def connected(running: Running) -> Iterator[Connection]:
    url = running.client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=30) as opened:
        yield Connection(opened)


def request(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: e", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def refusals(reason: str) -> float:
    return REGISTRY.get_sample_value("zenstep_refusals_total", {"reason": reason}) or 0


def test_a_refusal_before_the_body_leaves_the_connection_in_order(running: Running) -> None:
    """The body of what was refused is no part of the next request, whenever it comes."""
    good = request(f"{EVENTS}?key={running.world.keys[0]}", BODY)
    with connected(running) as connection:
        refused = request(EVENTS, BODY)
        connection.send(refused[: -len(BODY)])
        assert connection.answer()[0] == 401
        connection.send(BODY)
        connection.send(good + refused + good)
        assert [connection.answer()[0] for _ in range(3)] == [202, 401, 202]


def test_a_body_that_is_too_large_is_answered_before_it_has_come(running: Running) -> None:
    path = f"{EVENTS}?key={running.world.keys[0]}"
    with connected(running) as connection:
        connection.send(request(path, b" " * (MAX_BODY_BYTES + 1))[:-MAX_BODY_BYTES])
        assert connection.answer()[0] == 413
    with connected(running) as connection:
        connection.send(f"POST {path} HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(MAX_BODY_BYTES // 65536 + 1):
            connection.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert connection.answer()[0] == 413


def test_a_client_that_goes_in_the_middle_of_its_body_is_no_fault(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    before = refusals("client_gone")
    with connected(running) as connection:
        connection.send(request(f"{EVENTS}?key={running.world.keys[0]}", BODY)[:-1])
    until(lambda: refusals("client_gone") == before + 1)
    assert running.post(BODY).status_code == 202
    assert len(read_envelopes(running.world)) == 1
    assert [record for record in caplog.records if record.levelname not in ("DEBUG", "INFO")] == []


def test_a_body_that_does_not_come_is_a_408(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.app.read_body", partial(read_body, seconds=0.05))
    with connected(running) as connection:
        connection.send(request(f"{EVENTS}?key={running.world.keys[0]}", BODY)[:-1])
        status, headers, body = connection.answer()
        assert (status, body) == (408, b'{"error":"Request timeout"}')
        assert headers[b"connection"] == b"close"
        assert connection.closed()


def test_a_connection_that_sends_no_head_is_closed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.connections.HEAD_SECONDS", 0.05)
    for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: e\r\n"):
        with connected(running) as connection:
            connection.send(sent)
            assert connection.closed()


def test_a_body_that_drips_on_after_its_refusal_is_cut(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.connections.HEAD_SECONDS", 0.05)
    with connected(running) as connection:
        connection.send(request(EVENTS, BODY)[:-10])
        assert connection.answer()[0] == 401
        connection.send(b"x")
        assert connection.closed()


def test_a_request_under_way_is_not_cut_by_the_time_for_its_head(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.connections.HEAD_SECONDS", 0.05)
    with connected(running) as other, connected(running) as connection:
        connection.send(request(f"{EVENTS}?key={running.world.keys[0]}", BODY)[:-1])
        assert other.closed()  # so that much time has passed
        connection.send(BODY[-1:])
        assert connection.answer()[0] == 202


@pytest.mark.parametrize("part", [b"x", b"a: b\r\n"], ids=["one header", "many headers"])
def test_a_head_that_never_ends_is_a_431(running: Running, part: bytes) -> None:
    with connected(running) as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: e\r\nLong: " + part * (MAX_HEAD_BYTES // len(part)))
        assert connection.answer()[0::2] == (431, b'{"error":"Request header fields too large"}')
        assert connection.closed()


def test_a_head_of_a_browser_with_many_cookies_is_taken(running: Running) -> None:
    with connected(running) as connection:
        connection.send(request(EVENTS, b"", "Cookie: " + "c" * 32_000))
        assert connection.answer()[0::2] == (401, UNAUTHORIZED)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x00\xee\x01\x00\x00\xea\x03\x03",  # a client that speaks TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: e\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: e\r\nOrigin: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_400_in_the_documented_shape(running: Running, sent: bytes) -> None:
    with connected(running) as connection:
        connection.send(sent)
        status, headers, body = connection.answer()
        assert (status, headers[b"content-type"]) == (400, b"application/json")
        assert body == b'{"error":"Bad request"}'
        assert connection.closed()


def test_a_body_whose_framing_breaks_is_a_400_and_reaches_nothing(running: Running) -> None:
    with connected(running) as connection:
        head = f"POST {EVENTS}?key={running.world.keys[0]} HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.send(head.encode() + b"%x\r\n" % len(BODY) + BODY + b"\r\nnonsense\r\n")
        assert connection.answer()[0] == 400
        assert connection.closed()
    assert read_envelopes(running.world) == []


def test_an_upgrade_that_is_not_taken_is_an_ordinary_request(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(running) as connection:
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
        connection.send(request(HEARTBEAT, b"", *upgrade))
        assert connection.answer()[0::2] == (401, UNAUTHORIZED)
    assert caplog.records == [] or "upgrade" not in caplog.text.lower()


def test_a_client_that_waits_to_be_told_to_go_on_is_told(running: Running) -> None:
    with connected(running) as connection:
        whole = request(f"{EVENTS}?key={running.world.keys[0]}", BODY, "Expect: 100-continue")
        connection.send(whole[: -len(BODY)])
        assert connection.answer()[0] == 100
        connection.send(BODY)
        assert connection.answer()[0] == 202
