"""A connection to Redis that the library has opened, with many questions under way: each answer is the oldest one's.

Of the protocol (RESP 2) there is what a script and a PING answer: a text or an error.
"""

import asyncio
from collections import deque
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError, InvalidResponse, NoScriptError, RedisError, ResponseError, TimeoutError

LOOK_SECONDS = 0.002


class _Asked(NamedTuple):
    due: float
    answer: "asyncio.Future[bytes]"


class Wire(asyncio.Protocol):
    """For one event loop. One question that is not answered in time is the end: an answer may still come."""

    def __init__(self, connection: Any) -> None:
        """Takes over from the library, which reads at five times the cost."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = connection._writer.transport
        self._transport.set_protocol(self)
        self._connection = connection  # whose writer closes the transport when it is garbage
        self._asked: deque[_Asked] = deque()
        self._part = b""  # of an answer
        self._timer: asyncio.TimerHandle | None = None
        self.lost = False

    async def ask(self, seconds: float, *words: bytes) -> bytes:
        """Raises RedisError: what the server said, or that it said nothing in time."""
        if self.lost:
            raise ConnectionError("connection lost")
        asked = _Asked(self._loop.time() + seconds, self._loop.create_future())
        self._asked.append(asked)
        if self._timer is None:
            self._timer = self._loop.call_at(asked.due, self._look)
        self._transport.write(packed(words))
        return await asked.answer

    def close(self) -> None:
        self._end(ConnectionError("connection closed"))

    def data_received(self, data: bytes) -> None:
        if self._part:
            data = self._part + data
        try:
            self._part = data[self._read(data) :]
        except (ValueError, IndexError):
            self._end(InvalidResponse("no answer of Redis's"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionError(str(exc) if exc is not None else "connection lost"))

    def _read(self, data: bytes) -> int:
        """How much of it is whole answers."""
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            kind, text, after = data[at : at + 1], data[at + 1 : end], end + 2
            if kind == b"$":
                size = int(text)
                if len(data) < after + size + 2:
                    break
                text, after = data[after : after + size], after + size + 2
            elif kind not in (b"+", b"-"):
                raise ValueError(kind)
            answer = self._asked.popleft().answer
            if answer.done():  # whoever asked has gone
                pass
            elif kind == b"-":
                answer.set_exception(_error(text.decode("utf-8", "replace")))
            else:
                answer.set_result(text)
            at = after
        return at

    def _look(self, again: bool = False) -> None:
        """Whether the oldest question is overdue. Where the loop was held up its answer may have come, unread."""
        self._timer = None
        if not self._asked:
            return
        due = self._asked[0].due
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
        elif again:
            self._end(TimeoutError("no answer in time"))
        else:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look, True)

    def _end(self, error: RedisError) -> None:
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        self._connection._close()
        while self._asked:
            answer = self._asked.popleft().answer
            if not answer.done():
                answer.set_exception(error)


def packed(words: tuple[bytes, ...]) -> bytes:
    """A command as Redis reads it."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def _error(text: str) -> ResponseError:
    return (NoScriptError if text.startswith("NOSCRIPT") else ResponseError)(text)
