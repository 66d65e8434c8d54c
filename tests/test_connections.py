"""The edge's connections, byte by byte: what is left unread, what never ends, what is no HTTP, and who goes away."""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import orjson
import pytest
from prometheus_client import REGISTRY

from ingest.body import MAX_BODY_BYTES, read_body
from service.connections import DISCARD_BYTES, BoundedProtocol
from service.cycle import Cycle
from service.fields import Fields
from service.framing import MAX_HEAD_BYTES, MAX_HEADERS
from tests import wire
from tests.edges import EVENTS, HEARTBEAT, UNAUTHORIZED, Running, edge, make_world, read_envelopes, view
from tests.wire import Connection, request
from tests.working import until

BODY = orjson.dumps({"events": [view()]})


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    with edge(world) as client:
        yield Running(world, client)


@contextmanager
def connected(running: Running) -> Iterator[Connection]:
    with wire.connected(running.client.base_url) as connection:
        yield connection


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


def test_a_connection_that_has_ended_leaves_nothing_for_the_collector(running: Running) -> None:
    """It looks for cycles seldom, and a browser connects anew for each page."""
    good = request(f"{EVENTS}?key={running.world.keys[0]}", BODY)
    gc.collect()
    gc.disable()
    try:
        for pieces in (
            [good],
            [good + good],
            [request(EVENTS, BODY)],
            [b"no HTTP at all\r\n\r\n"],
            [good[:-5]],
            [good[:9]],
        ):
            with connected(running) as connection:
                for piece in pieces:
                    connection.send(piece)
                if pieces[0] in (good, good + good):
                    assert connection.answer()[0] == 202
        until(lambda: not left_over())
    finally:
        gc.enable()


def left_over() -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, BoundedProtocol | Cycle)]


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


def test_a_refused_body_is_read_to_its_end_up_to_a_bound(running: Running) -> None:
    """A client that sends before it listens still reads the answer; one that sends for ever is cut."""
    path = f"{EVENTS}?key={running.world.keys[0]}"
    body = b" " * DISCARD_BYTES
    with connected(running) as connection:
        connection.send(request(path, body))
        assert connection.answer()[0] == 413
        connection.send(request(path, BODY))
        assert connection.answer()[0] == 202
    with connected(running) as connection:
        connection.send(request(path, body + b" ")[: -len(body)])
        status, headers, _ = connection.answer()
        assert (status, headers[b"connection"]) == (413, b"close")
        assert connection.closed()
    with connected(running) as connection:
        connection.send(f"POST {path} HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        with pytest.raises(ConnectionError):
            for _ in range(2**30):
                connection.send(b"10000\r\n" + b" " * 65536 + b"\r\n")


def test_what_comes_behind_the_last_answer_of_a_connection_is_no_request(running: Running) -> None:
    refused = request(EVENTS, BODY, "Connection: close")
    good = request(f"{EVENTS}?key={running.world.keys[0]}", BODY)
    with connected(running) as connection:
        connection.send(refused[:-1])
        status, headers, _ = connection.answer()
        assert (status, headers[b"connection"]) == (401, b"close")
        connection.send(refused[-1:] + good)
        assert connection.closed()
    assert read_envelopes(running.world) == []


def test_garbage_behind_a_request_takes_no_answer_from_it(running: Running) -> None:
    good = request(f"{EVENTS}?key={running.world.keys[0]}", BODY)
    with connected(running) as connection:
        connection.send(good + good + b"garbage\r\n\r\n" + good)
        assert [connection.answer()[0] for _ in range(3)] == [202, 202, 400]
        assert connection.closed()
    assert len(read_envelopes(running.world)) == 2


def test_a_request_with_a_broken_body_behind_another_is_the_last(running: Running) -> None:
    path = f"{EVENTS}?key={running.world.keys[0]}"
    broken = f"POST {path} HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode()
    with connected(running) as connection:
        connection.send(request(path, BODY) + broken)
        assert [connection.answer()[0] for _ in range(2)] == [202, 400]
        assert connection.closed()
    assert len(read_envelopes(running.world)) == 1


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
    monkeypatch.setattr("ingest.call.read_body", partial(read_body, seconds=0.05))
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


def test_a_request_that_came_while_the_edge_stood_still_is_answered(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection's time was over before the edge could look, which is no fault of the client."""
    reached, go_on = threading.Event(), threading.Event()

    def stand_still() -> Fields:
        monkeypatch.setattr("service.connections.Fields", Fields)
        reached.set()
        assert go_on.wait(30)
        return Fields()

    good = request(f"{EVENTS}?key={running.world.keys[0]}", BODY)
    monkeypatch.setattr("service.connections.IDLE_SECONDS", 0.05)
    with connected(running) as connection:
        with connected(running) as other:
            connection.send(good)
            assert connection.answer()[0] == 202
            over = time.monotonic() + 0.1
            monkeypatch.setattr("service.connections.Fields", stand_still)
            other.send(good)
            assert reached.wait(30)
            connection.send(good)
            until(lambda: time.monotonic() > over)
            go_on.set()
            assert connection.answer()[0] == other.answer()[0] == 202
        assert connection.closed()  # for it is idle now


@pytest.mark.parametrize("part", [b"x", b"a: b\r\n"], ids=["one header", "many headers"])
def test_a_head_that_never_ends_is_a_431(running: Running, part: bytes) -> None:
    with connected(running) as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: e\r\nLong: " + part * (MAX_HEAD_BYTES // len(part)))
        assert connection.answer()[0::2] == (431, b'{"error":"Request header fields too large"}')
        assert connection.closed()


@pytest.mark.parametrize("more", ["Long: " + "x" * MAX_HEAD_BYTES, "\r\n".join(["a: b"] * MAX_HEADERS)])
def test_a_whole_head_beyond_the_bounds_is_a_431_too(running: Running, more: str) -> None:
    with connected(running) as connection:
        connection.send(request(EVENTS, b"", more))
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


def test_what_is_no_http_is_counted_and_does_not_fill_the_log(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("zenstep_malformed_requests_total") or 0

    before = counted()
    for _ in range(3):
        with connected(running) as connection:
            connection.send(b"no http at all\r\n\r\n")
            assert connection.answer()[0] == 400
    assert counted() == before + 3
    assert caplog.records == []


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
        assert connection.closed()
    assert caplog.records == [] or "upgrade" not in caplog.text.lower()


def test_a_client_that_waits_to_be_told_to_go_on_is_told(running: Running) -> None:
    with connected(running) as connection:
        whole = request(f"{EVENTS}?key={running.world.keys[0]}", BODY, "Expect: 100-continue")
        connection.send(whole[: -len(BODY)])
        assert connection.answer()[0] == 100
        connection.send(BODY)
        assert connection.answer()[0] == 202


def test_a_client_that_waits_and_is_refused_cannot_be_misread(running: Running) -> None:
    """It may send its body all the same, or its next request: nobody can tell, so the connection ends."""
    with connected(running) as connection:
        connection.send(request(EVENTS, BODY, "Expect: 100-continue")[: -len(BODY)])
        status, headers, _ = connection.answer()
        assert (status, headers[b"connection"]) == (401, b"close")
        connection.send(request(f"{EVENTS}?key={running.world.keys[0]}", BODY))
        assert connection.closed()
    assert read_envelopes(running.world) == []
