"""uvicorn's connections within bounds: a request's head has a size and a time, what is not read is bounded too, every
answer is JSON, and what is no HTTP is the last thing that is heard on a connection.

Without them a client could hold a connection, or fill memory, with a head that never ends, and its garbage could be
taken for a request.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import metrics
from service.framing import MAX_HEAD_BYTES, MAX_HEADERS, HeadTooLarge, body_length

HEAD_SECONDS = 15.0
DISCARD_BYTES = 8 * 1024 * 1024
"""What is read of a body after its request has been answered. A longer one ends the connection."""
LINGER_SECONDS = 2.0
"""How long a client may still send after the last answer: a reset now could take the answer from it."""


def _refusal(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (status, len(body)) + body


_TOO_LARGE = _refusal(b"431 Request Header Fields Too Large", b'{"error":"Request header fields too large"}')
_BAD_REQUEST = _refusal(b"400 Bad Request", b'{"error":"Bad request"}')


# uvicorn says so for each of them, so that anybody could fill the log; a metric counts them instead.
logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != "Invalid HTTP request received.")


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
    """From the start of a connection or the end of an answer, a client has HEAD_SECONDS to send the next head."""

    transport: Any
    _in_message = False
    _in_head = False
    _head_bytes = 0
    _discarded = 0
    _last_words: bytes | None = None
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Transport(transport, self._close))  # type: ignore[arg-type]
        self._wait(HEAD_SECONDS, self._no_head_came)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._last_words is not None or self.transport.ended:
            self._discard(data)
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
                self._end_with(_TOO_LARGE)
        elif self._in_message and self.cycle.response_complete:
            self._discard(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = self._in_head = True
        self._head_bytes = self._discarded = 0

    def on_headers_complete(self) -> None:
        upgrade = self.parser.should_upgrade()
        try:
            length = body_length(self.parser.get_http_version(), self.url, self.headers, upgrade)
        except HeadTooLarge:
            self._end_with(_TOO_LARGE)
            raise
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()
        # A client that waits to be told to go on may not send the body that was refused: what comes then is unclear.
        if upgrade or self.expect_100_continue or DISCARD_BYTES < length < float("inf"):
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._last_words is not None and not self.pipeline and not self.transport.is_closing():
            self._say_last_words()
            return
        super().on_response_complete()
        if not self.transport.is_closing():
            self._wait(HEAD_SECONDS, self._no_head_came)

    def send_400_response(self, msg: str) -> None:
        metrics.malformed_requests.inc()
        self._end_with(_BAD_REQUEST)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade that is not taken is an ordinary request, and no event."""

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
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        transport.own.resume_reading()
        transport.own.write_eof()
        self._wait(LINGER_SECONDS, transport.own.close)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > DISCARD_BYTES:
            self.transport.own.close()

    def _no_head_came(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.own.close()

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(seconds, then)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
