"""One connection of the load: sends a request, and tells its run of the answer, which must be the one expected."""

import asyncio
from collections.abc import Callable

ACCEPTED = b"HTTP/1.1 202 "


class Unexpected(Exception):
    """Another answer than 202, or none; the message is what came."""


class Connection(asyncio.Protocol):
    """`answered` is called once for each request; `failed` at a wrong answer, or where none comes.

    A server may close a connection that waits for its next request: then `idle_lost` is called.
    """

    transport: asyncio.Transport
    due = 0.0
    out = False  # whether a request has no answer yet

    def __init__(
        self,
        answer: bytes,
        answered: Callable[["Connection"], None],
        failed: Callable[[Exception], None],
        idle_lost: Callable[["Connection"], None],
    ) -> None:
        self._answer = answer
        self._answered = answered
        self._failed = failed
        self._idle_lost = idle_lost
        self._part = b""
        self._closing = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def send(self, request: bytes, due: float) -> None:
        """`due` is when the request was to be sent, on the clock of the run."""
        self.due = due
        self.out = True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._part:
            data = self._part + data
        # One comparison at each end is all that an answer costs as a rule.
        if not (data.startswith(ACCEPTED) and data.endswith(self._answer)):
            if not whole(data):
                self._part = data
                return
            self._failed(Unexpected(data[:1000].decode("latin-1")))
            return
        self._part = b""
        self.out = False
        self._answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing:
            return
        if self.out:
            self._failed(Unexpected("the server closed the connection without an answer"))
        else:
            self._idle_lost(self)

    def close(self) -> None:
        self._closing = True
        self.transport.close()


def whole(data: bytes) -> bool:
    """Whether an answer is there to its last byte."""
    head, end, content = data.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return len(content) >= int(value)
    return True
