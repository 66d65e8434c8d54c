"""A connection to one broker: requests go out, and their answers come back in the same order."""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, cast

from backends.log import kafka_frames as frames

MAX_ANSWER_BYTES = 1024 * 1024
_HEAD = struct.Struct(">ii")  # length, correlation

Answered = Callable[[bytes | None], None]
"""Told what came back, or None where the connection ended before."""


class _Waiting(NamedTuple):
    correlation: int
    size: int
    answered: Answered
    late: asyncio.TimerHandle


class Connection(asyncio.Protocol):
    """`lost` is told once, when it has ended. One whose answer is late is given up, and all that waits on it."""

    def __init__(self, patience: float, lost: "Callable[[Connection], None]") -> None:
        self._patience = patience
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._correlation = 0
        self._waiting: deque[_Waiting] = deque()
        self._received = b""
        self.unanswered_bytes = 0  # of the requests whose answers are still to come

    def request(self, api: int, version: int, body: bytes, answered: Answered) -> None:
        """`answered` is not told before this has returned."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            loop.call_soon(answered, None)
            return
        self._correlation = (self._correlation + 1) & 0x7FFFFFFF
        late = loop.call_later(self._patience, self.abort)
        self._waiting.append(_Waiting(self._correlation, len(body), answered, late))
        self.unanswered_bytes += len(body)
        self._transport.write(frames.frame(api, version, self._correlation, body))

    def abort(self) -> None:
        """Ends it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        at = 0
        while len(received) - at >= _HEAD.size:
            length, correlation = _HEAD.unpack_from(received, at)
            if not 4 <= length <= MAX_ANSWER_BYTES:
                self.abort()
                return
            if len(received) - at < 4 + length:
                break
            if not self._waiting or self._waiting[0].correlation != correlation:
                self.abort()
                return
            waiting = self._waiting.popleft()
            self.unanswered_bytes -= waiting.size
            waiting.late.cancel()
            waiting.answered(received[at + _HEAD.size : at + 4 + length])
            at += 4 + length
        self._received = received[at:]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost(self)
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            one.late.cancel()
            one.answered(None)
