"""Shapes of requests that two readers in a row could take in two ways: refused and the end, or read in one way."""

from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest

from tests.edges import EVENTS, UNAUTHORIZED, Running, read_envelopes, view
from tests.wire import Connection, connected, request

BODY = orjson.dumps({"events": [view()]})
BAD_REQUEST = b'{"error":"Bad request"}'
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"Content-Length: %d" % len(BODY)
# Each is a head's lines and a body. The good request behind it must never be taken for its body, nor its body for one.
REFUSED = {
    "a length and chunks": ([LENGTH, b"Transfer-Encoding: chunked"], CHUNKED),
    "chunks and a length": ([b"Transfer-Encoding: chunked", b"Content-Length: 4"], CHUNKED),
    "two lengths": ([LENGTH, b"Content-Length: 1"], BODY),
    "the same length twice": ([LENGTH, LENGTH], BODY),
    "a list of lengths": ([b"Content-Length: %d, %d" % (len(BODY), len(BODY))], BODY),
    "a length with a sign": ([b"Content-Length: +%d" % len(BODY)], BODY),
    "a length below zero": ([b"Content-Length: -1"], BODY),
    "a length in hexadecimal": ([b"Content-Length: 0x10"], BODY),
    "a length of two numbers": ([b"Content-Length: 1 0"], BODY),
    "a length beyond 64 bits": ([b"Content-Length: 18446744073709551617"], BODY),
    "an empty length": ([b"Content-Length:"], BODY),
    "the coding identity": ([b"Transfer-Encoding: identity"], BODY),
    "a coding before chunks": ([b"Transfer-Encoding: gzip, chunked"], CHUNKED),
    "a coding after chunks": ([b"Transfer-Encoding: chunked, gzip"], CHUNKED),
    "chunks twice": ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], CHUNKED),
    "identity, then chunks": ([b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"], CHUNKED),
    "a coding that is nearly chunked": ([b"Transfer-Encoding: xchunked"], CHUNKED),
    "a coding in quotes": ([b'Transfer-Encoding: "chunked"'], CHUNKED),
    "a coding behind a vertical tab": ([b"Transfer-Encoding: \x0bchunked"], CHUNKED),
    "a space before the colon": ([b"Content-Length : %d" % len(BODY)], BODY),
    "a tab before the colon": ([b"Transfer-Encoding\t: chunked"], CHUNKED),
    "a folded line": ([LENGTH, b"X: a", b" b"], BODY),
    "a folded coding": ([b"Transfer-Encoding:", b" chunked"], CHUNKED),
    "a bare line feed in a head": ([b"X: a\n" + LENGTH], BODY),
    "a bare carriage return in a head": ([b"X: a\r" + LENGTH], BODY),
    "a header without a colon": ([LENGTH, b"abc"], BODY),
    "a header without a name": ([LENGTH, b": a"], BODY),
    "a NUL in a header": ([LENGTH, b"X: a\x00b"], BODY),
    "a second host": ([LENGTH, b"Host: other"], BODY),
    "an upgrade with a body": ([LENGTH, b"Connection: upgrade", b"Upgrade: h2c"], BODY),
    "a chunk's size with a sign": ([b"Transfer-Encoding: chunked"], b"+" + CHUNKED),
    "a chunk's size with 0x": ([b"Transfer-Encoding: chunked"], b"0x" + CHUNKED),
    "a chunk's size with a space": ([b"Transfer-Encoding: chunked"], CHUNKED.replace(b"\r\n", b" \r\n", 1)),
    "a chunk's size beyond 64 bits": ([b"Transfer-Encoding: chunked"], b"f" * 17 + b"\r\n" + BODY),
    "chunks with bare line feeds": ([b"Transfer-Encoding: chunked"], CHUNKED.replace(b"\r\n", b"\n")),
    "a chunk longer than its size": ([b"Transfer-Encoding: chunked"], b"1\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "an extension with a bare line feed": ([b"Transfer-Encoding: chunked"], CHUNKED.replace(b"\r\n", b";a\n", 1)),
    "an extension with a line in quotes": (
        [b"Transfer-Encoding: chunked"],
        CHUNKED.replace(b"\r\n", b';a="\r\n"\r\n', 1),
    ),
    "an extension with a NUL": ([b"Transfer-Encoding: chunked"], CHUNKED.replace(b"\r\n", b";\x00\r\n", 1)),
    "a length in the trailers": (
        [b"Transfer-Encoding: chunked"],
        CHUNKED.removesuffix(b"\r\n") + b"Content-Length: 9\r\n\r\n",
    ),
}
LINES = {
    "no host": b"POST /%b HTTP/1.1\r\n",
    "chunks in HTTP/1.0": b"POST /%b HTTP/1.0\r\nHost: e\r\nTransfer-Encoding: chunked\r\n",
    "HTTP/0.9": b"GET /%b\r\n",
    "HTTP/1.2": b"POST /%b HTTP/1.2\r\nHost: e\r\n",
    "HTTP/2": b"POST /%b HTTP/2.0\r\nHost: e\r\n",
    "HTTP in lower case": b"POST /%b http/1.1\r\nHost: e\r\n",
    "a space behind the version": b"POST /%b HTTP/1.1 \r\nHost: e\r\n",
    "a method in lower case": b"post /%b HTTP/1.1\r\nHost: e\r\n",
    "a target without a slash": b"POST %b HTTP/1.1\r\nHost: e\r\n",
    "a tunnel": b"CONNECT e:80/%b HTTP/1.1\r\nHost: e\r\n",
    "bytes that are no ASCII in the target": b"POST /\xc3\xa9%b HTTP/1.1\r\nHost: e\r\n",
    "a head of bare line feeds": b"POST /%b HTTP/1.1\nHost: e\n",
    "a first header that is folded": b"POST /%b HTTP/1.1\r\n Host: e\r\n",
}


def target(running: Running) -> str:
    return f"{EVENTS}?key={running.world.keys[0]}"


@contextmanager
def taking(running: Running, count: int) -> Iterator[Connection]:
    """A connection over which so many requests are taken."""
    before = len(read_envelopes(running.world))
    with connected(running.client.base_url) as connection:
        yield connection
    assert len(read_envelopes(running.world)) == before + count


def hold_refused(running: Running, sent: bytes) -> None:
    with taking(running, 0) as connection:
        connection.send(sent + request(target(running), BODY))
        status, headers, body = connection.answer()
        assert (status, body, headers[b"content-type"]) == (400, BAD_REQUEST, b"application/json")
        assert headers[b"connection"] == b"close"
        assert connection.closed()


@pytest.mark.parametrize(("lines", "body"), REFUSED.values(), ids=REFUSED)
def test_a_head_or_body_that_could_be_read_in_two_ways_is_the_last(
    running: Running, lines: list[bytes], body: bytes
) -> None:
    head = b"\r\n".join([f"POST {target(running)} HTTP/1.1".encode(), b"Host: e", *lines])
    hold_refused(running, head + b"\r\n\r\n" + body)


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_first_line_that_is_not_http_1_is_the_last(running: Running, line: bytes) -> None:
    hold_refused(running, line % target(running)[1:].encode() + b"\r\n")


READ = {
    "an extension": (b"Transfer-Encoding: chunked", CHUNKED.replace(b"\r\n", b";a=b\r\n", 1)),
    "capitals": (b"TRANSFER-ENCODING: Chunked", CHUNKED),
    "spaces around the coding": (b"Transfer-Encoding: \t chunked ", CHUNKED),
    "zeros before a size": (b"Transfer-Encoding: chunked", b"000" + CHUNKED),
    "zeros before a length": (b"Content-Length: 000%d" % len(BODY), BODY),
    "trailers": (b"Transfer-Encoding: chunked", CHUNKED.removesuffix(b"\r\n") + b"X: y\r\n\r\n"),
}


@pytest.mark.parametrize(("line", "body"), READ.values(), ids=READ)
def test_what_is_odd_but_clear_is_read_to_its_end_and_no_further(running: Running, line: bytes, body: bytes) -> None:
    with taking(running, 2) as connection:
        head = f"POST {target(running)} HTTP/1.1\r\nHost: e\r\n".encode() + line + b"\r\n\r\n"
        connection.send((head + body) * 2 + request(EVENTS, BODY))
        assert [connection.answer()[0] for _ in range(3)] == [202, 202, 401]


def test_a_target_with_a_server_in_it_is_read_by_its_path(running: Running) -> None:
    with taking(running, 1) as connection:
        connection.send(request(f"http://other.example:99{target(running)}", BODY))
        assert connection.answer()[0] == 202
        connection.send(request(f"//other.example{target(running)}", BODY))
        assert connection.answer()[0] == 404


def test_http_1_0_has_one_answer_whatever_it_asks_for(running: Running) -> None:
    old = request(target(running), BODY, "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")
    with taking(running, 1) as connection:
        connection.send(old * 2)
        status, headers, _ = connection.answer()
        assert (status, headers[b"connection"]) == (202, b"close")
        assert connection.closed()


def test_requests_sent_at_once_are_answered_in_their_order(running: Running) -> None:
    with taking(running, 10) as connection:
        connection.send((request(target(running), BODY) + request(EVENTS, BODY)) * 10 + b"\x00garbage")
        answers = [connection.answer()[0::2] for _ in range(21)]
        assert answers == [(202, b'{"accepted":1}'), (401, UNAUTHORIZED)] * 10 + [(400, BAD_REQUEST)]
        assert connection.closed()
