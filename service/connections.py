"""uvicorn's connections within bounds: a request's head has a size and a time, and every answer is JSON.

Without them a client could hold a connection, or fill memory, with a head that never ends.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 15.0

_TOO_LARGE = b'{"error":"Request header fields too large"}'
_BAD_REQUEST = b'{"error":"Bad request"}'


class BoundedProtocol(HttpToolsProtocol):
    """From the start of a connection or the end of an answer, a client has HEAD_SECONDS to send the next head."""

    _in_head = False
    _head_bytes = 0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_whole()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._close_with(b"431 Request Header Fields Too Large", _TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_is_whole()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self._wait_for_head()

    def send_400_response(self, msg: str) -> None:
        self._close_with(b"400 Bad Request", _BAD_REQUEST)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade that is not taken is an ordinary request, and no event."""

    def _wait_for_head(self) -> None:
        self._head_is_whole()
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._no_head_came)

    def _head_is_whole(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _no_head_came(self) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and not self.transport.is_closing():
            self.transport.close()

    def _close_with(self, status: bytes, body: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
