"""uvicorn's connections within bounds: a request's head has a size and a time, what is not read is bounded too, every
answer is JSON, and what is no HTTP is the last thing that is heard on a connection.

Without them a client could hold a connection, or fill memory, with a head that never ends, and its garbage could be
taken for a request.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import lru_cache
from math import inf
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import metrics
from service.alarm import Alarm
from service.cycle import Cycle
from service.fields import Fields
from service.framing import MAX_HEAD_BYTES, MAX_HEADERS, HeadTooLarge, body_length

HEAD_SECONDS = 15.0
IDLE_SECONDS = 5.0
"""How long a connection is kept after an answer, for a request of which nothing has come."""
DISCARD_BYTES = 8 * 1024 * 1024
"""What is read of a body after its request has been answered. A longer one ends the connection."""
LINGER_SECONDS = 2.0
"""How long a client may still send after the last answer: a reset now could take the answer from it."""


def _refusal(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (status, len(body)) + body


AtOnce = Callable[[Cycle], bool]
"""What an application may have as `at_once`: takes a request that it can answer without a task, else does nothing."""

MAX_KNOWN = 256  # bytes of a target that is remembered
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_METHODS = {method.encode(): method for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")}
_TOO_LARGE = _refusal(b"431 Request Header Fields Too Large", b'{"error":"Request header fields too large"}')
_BAD_REQUEST = _refusal(b"400 Bad Request", b'{"error":"Bad request"}')


class _Transport:
    """The connection's own, but for `close`, which is the protocol's to decide."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.own = transport
        self.write = transport.write
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.get_extra_info = transport.get_extra_info
        self.close = close
        self.ended = False

    def is_closing(self) -> bool:
        return self.ended or self.own.is_closing()


class BoundedProtocol(HttpToolsProtocol):
    """From the start of a connection or the end of an answer, a client has HEAD_SECONDS to send the next head.

    uvicorn's own, with what it does for every request written anew, since that was most of an answer's cost.
    """

    transport: Any
    cycle: Cycle  # type: ignore[assignment]
    headers: Fields
    _in_message = False
    _in_head = False
    _head_bytes = 0  # of the head that is under way, without what came last
    _came = 0  # bytes that came last
    _discarded = 0
    _last_words: bytes | None = None
    _idle = False
    _head_due = inf
    _answering: Cycle | None = None  # the oldest that is not answered yet, else the last; `cycle` is the newest
    _new: Cycle | None = None  # begun by what came last, and not yet on its way

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Transport(transport, self._close))  # type: ignore[arg-type]
        self._at_once: AtOnce | None = getattr(self.app, "at_once", None)
        self._alarm = Alarm(self.loop)
        self._alarm.set(HEAD_SECONDS, self._no_head_came)

    def connection_lost(self, exc: Exception | None) -> None:
        self._alarm.close()
        self.connections.discard(self)
        self._disconnect()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        # What refers to each other stays until the collector comes to it, which is thousands of connections later.
        self.transport.close = self.transport.own.close
        self.parser = self.cycle = self._answering = None  # type: ignore[assignment]
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        if self._last_words is not None or self.transport.ended:
            self._discard(data)
            return
        if self._idle:
            self._idle = False
            self._alarm.put_off(self._head_due)
        self._came = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # an upgrade that is not taken is an ordinary request, and no event
        except httptools.HttpParserError:
            metrics.malformed_requests.inc()
            self._end_with(_BAD_REQUEST)
        new, self._new = self._new, None
        if new is not None:
            self._start(new)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
                self._end_with(_TOO_LARGE)
        elif self._in_message and self.cycle.response_complete:
            self._discard(data)

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = Fields()
        self._in_message = self._in_head = True
        self._head_bytes = self._discarded = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        version, upgrade = parser.get_http_version(), parser.should_upgrade()
        self.headers.whole()
        try:
            short = self._head_bytes + self._came <= MAX_HEAD_BYTES
            length, waits = body_length(version, self.url, self.headers, upgrade, short)
        except HeadTooLarge:
            self._end_with(_TOO_LARGE)
            raise
        scope = self._scope(version, parser.get_method())  # where the target is none, this is no request yet
        self._in_head = False
        self._alarm.clear()
        before = self.cycle
        keep_alive = version != "1.0" and parser.should_keep_alive()
        cycle = self.cycle = Cycle(self, scope, keep_alive, waits)
        # A client that waits to be told to go on may not send the body that was refused: what comes then is unclear.
        if upgrade or waits or DISCARD_BYTES < length < inf:
            cycle.keep_alive = False
        if before is None or before.response_complete:
            self._new = cycle  # when all that came is looked at, since the body may be there too
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        if not self.cycle.response_complete:
            self.cycle.add(body)
            if len(self.cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()

    def on_message_complete(self) -> None:
        self._in_message = False
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.notify()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self._last_words is not None and not self.pipeline and not self.transport.is_closing():
            self._say_last_words()
            return
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        idle = min(IDLE_SECONDS, HEAD_SECONDS)
        self._head_due = self._alarm.set(idle, self._no_head_came) + HEAD_SECONDS - idle
        self._idle = not (self.pipeline or self._in_head)
        if not self._idle:
            self._alarm.put_off(self._head_due)
        if self.pipeline:
            self._start(self.pipeline.pop()[0])  # type: ignore[arg-type]

    def _scope(self, version: str, method: bytes) -> dict[str, Any]:
        url = self.url
        path, raw_path, query = (_target if len(url) <= MAX_KNOWN else _target.__wrapped__)(url)
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": _METHODS.get(method) or method.decode("ascii"),
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
        }

    def _start(self, cycle: Cycle) -> None:
        self._answering = cycle
        if self._at_once is None or not self._at_once(cycle):
            self.spawn(cycle.run(self.app))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _end_with(self, answer: bytes) -> None:
        """What came is no request and nothing behind it is. The requests before it are answered first."""
        if self._last_words is not None or self.transport.is_closing():
            return
        self._last_words = answer
        broken = self._in_message and not self._in_head  # the newest request, in its body
        if broken and self.pipeline:
            self.pipeline.popleft()
        elif broken or self.cycle is None or self.cycle.response_complete:
            self._say_last_words()

    def _say_last_words(self) -> None:
        if self._last_words and (self._in_head or self.cycle is None or not self.cycle.response_started):
            self.transport.write(self._last_words)
        self._in_message = True
        self.transport.close()

    def _close(self) -> None:
        """At once, but where the client may still be sending."""
        transport = self.transport
        if transport.ended or transport.own.is_closing() or not self._in_message:
            transport.own.close()
            return
        transport.ended = True
        self._disconnect()
        transport.own.resume_reading()
        transport.own.write_eof()
        self._alarm.set(LINGER_SECONDS, transport.own.close)

    def _disconnect(self) -> None:
        """Nobody is there any more to read an answer."""
        for cycle in (self.cycle, self._answering):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.notify()

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > DISCARD_BYTES:
            self.transport.own.close()

    def _no_head_came(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.own.close()


@lru_cache(1024)
def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """Its path, the same as it was sent, and its query. What it raises for a bad one ends in a 400."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""
