"""One request and its answer as ASGI has them: uvicorn's own class does the same at four times the cost."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

log = logging.getLogger(__name__)

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
BODILESS = {204, 304}


class Cancellable(Protocol):
    """Work for a request: a task, or what does without."""

    def cancel(self, msg: Any | None = None) -> object: ...


class Connection(Protocol):
    """What a cycle needs of the connection it came over."""

    transport: Any
    flow: FlowControl
    tasks: set[Any]

    def on_response_complete(self) -> None: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...


class Cycle:
    """The connection fills `body` and calls `notify`; the application's task is `run`.

    An application that needs no task for it calls `answer` when it has one, and `end_badly` where it never will.
    """

    __slots__ = (
        "_chunked",
        "_connection",
        "_left",
        "_news",
        "_waiter",
        "body",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
        "scope",
        "waiting_for_100_continue",
    )

    def __init__(self, connection: Connection, scope: Scope, keep_alive: bool, expect_100_continue: bool) -> None:
        self._connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expect_100_continue
        self.body: bytes | bytearray = b""
        self.more_body = True
        self.disconnected = self.response_started = self.response_complete = False
        self._news = False  # something that `receive` has not told
        self._waiter: asyncio.Future[None] | None = None
        self._chunked = False
        self._left = 0  # bytes of the answer's body that its Content-Length promises still

    def add(self, piece: bytes) -> None:
        """One piece is all there is nearly always; a client may also send a thousand of one byte."""
        if not self.body:
            self.body = piece
        elif isinstance(self.body, bytearray):
            self.body += piece
        else:
            self.body = bytearray(self.body) + piece
        self.notify()

    def notify(self) -> None:
        """There is more of the body, or all of it, or no client any more."""
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def whole_body(self) -> bytes | None:
        """All of the body where it has come already, so that nobody need wait for it."""
        if self.more_body or self.response_complete:
            return None
        return bytes(self.body)

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            log.exception("fault of an application")
            self.end_badly()
        except asyncio.CancelledError:
            self.end_badly()
            raise
        else:
            if not self.response_complete and not self.disconnected:
                log.error("an application has given no whole answer")
                self.end_badly()

    async def receive(self) -> Message:
        if self.waiting_for_100_continue and not self._connection.transport.is_closing():
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self._connection.flow.resume_reading()
            if not self._news:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            self._news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        await self.writable()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            self._connection.transport.write(self._head(message["status"], message.get("headers", ())))
        elif kind == "http.response.body" and self.response_started and not self.response_complete:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} has no place here")

    @property
    def full(self) -> bool:
        """Whether the client has yet to read what it was sent: `writable` waits for it."""
        return self._connection.flow.write_paused and not self.disconnected

    async def writable(self) -> None:
        if self.full:
            await self._connection.flow.drain()

    def answer(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, written: Sequence[bytes] = ()
    ) -> None:
        """A whole answer at once: what two calls of `send` do. `written` are further headers as they go out.

        Who begins to answer where the connection is `full` waits first, so that it holds one answer too much at most.
        """
        if self.disconnected:
            return
        head = self._head(status, headers, written)
        if self.scope["method"] == "HEAD":
            body, self._left = b"", 0
        if len(body) != self._left:
            raise RuntimeError("the body is not as long as its Content-Length")
        self._connection.transport.write(head + body)
        self._complete()

    def _head(self, status: int, headers: Iterable[tuple[bytes, bytes]], written: Sequence[bytes] = ()) -> bytes:
        length = connection = None
        lines = [STATUS_LINES[status]]
        for header in headers:
            lines.append(_line(header))
            if header[0] == b"content-length":
                length = header[1]
            elif header[0] == b"connection":
                connection = header[1]
        lines += written
        if length is not None:
            self._left = int(length)
        elif self.scope["method"] != "HEAD" and status not in BODILESS:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        if connection == b"close":
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self.response_started = True
        self.waiting_for_100_continue = False
        return b"".join(lines)

    def _send_body(self, body: bytes, more: bool) -> None:
        write = self._connection.transport.write
        if self.scope["method"] == "HEAD":
            self._left = 0
        elif self._chunked:
            write((b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n"))
        else:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("the body is longer than its Content-Length")
            write(body)
        if not more:
            if self._left:
                raise RuntimeError("the body is shorter than its Content-Length")
            self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self.notify()
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.on_response_complete()

    def end_badly(self) -> None:
        """Where there is no answer, or no whole one: a 500 in its place where that can be, and the connection ends."""
        if self.response_started or self.disconnected:
            self._connection.transport.close()
            return
        body = b'{"error":"Internal server error"}'
        described = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        self.answer(500, [*described, (b"connection", b"close")], body)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """A task which the end of the process waits for, as for `run`."""
        self._connection.spawn(work)

    def hold(self, work: Cancellable) -> None:
        """The end of the process waits for this too, until it is let go of, and cancels it after a while."""
        self._connection.tasks.add(work)

    def let_go(self, work: Cancellable) -> None:
        self._connection.tasks.discard(work)


@lru_cache(1024)  # most are the same in every answer
def _line(header: tuple[bytes, bytes]) -> bytes:
    line = b"%b: %b" % header
    if b"\n" in line or b"\r" in line or b"\0" in line:
        raise RuntimeError("a header has a line break in it")
    return line + b"\r\n"


def written_out(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """As they go out. Those that say where an answer ends, or whether its connection does, are not to be among them."""
    return b"".join(map(_line, headers))


def direct(send: Send) -> Cycle | None:
    """The cycle whose `send` this is, where no middleware stands between it and the application."""
    cycle = getattr(send, "__self__", None)
    return cycle if type(cycle) is Cycle else None
