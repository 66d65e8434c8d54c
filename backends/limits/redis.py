"""Counting in a Redis (6 or later) or Valkey that all edges share: one script call for all keys of a tick.

One server with or without replicas, not a cluster: a script's keys would have to lie on one node.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from hashlib import sha1
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from backends.limits.protocol import LimitsAway, Window
from backends.limits.wire import Wire
from schemas.limits import WINDOW_SECONDS

ANSWER_SECONDS = 0.1
PACE_SECONDS = 0.004
"""Between two questions: each costs this process as much as half a request, and the server and its core too."""
CONNECT_SECONDS = 5.0
PREFIX = "zenstep:limit:"
# A key has no time to live when it is new, and by some accident: it would count for ever. The answer is one text, since
# to read a number in a list costs as much as to read that.
SCRIPT = """
local found = {}
for i, key in ipairs(KEYS) do
    local used = redis.call('INCRBY', key, ARGV[i + 1])
    local left = redis.call('PTTL', key)
    if left < 0 then
        redis.call('PEXPIRE', key, ARGV[1])
        left = ARGV[1]
    end
    found[2 * i - 1] = used
    found[2 * i] = left
end
return table.concat(found, ' ')
"""
_DIGEST = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest().encode()


class RedisLimits:
    """See Limits. Connects when it is first asked, and again after the connection is lost.

    One connection, and the commands' own bytes: through the library's client a question costs five times as much.
    """

    pace = PACE_SECONDS

    def __init__(self, url: str, seconds: float = WINDOW_SECONDS, clock: Callable[[], float] = time.time) -> None:
        self._milliseconds = b"%d" % round(seconds * 1000)
        self._clock = clock
        self._pool = redis.asyncio.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,  # every wait is bounded here
            socket_connect_timeout=None,
        )
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()

    async def add(self, hits: Mapping[str, int]) -> Mapping[str, Window]:
        keys = [(PREFIX + key).encode() for key in hits]
        arguments = [b"%d" % len(keys), *keys, self._milliseconds, *[b"%d" % count for count in hits.values()]]
        try:
            wire = await self._connected(ANSWER_SECONDS)
            try:
                answer = await wire.ask(ANSWER_SECONDS, b"EVALSHA", _DIGEST, *arguments)
            except NoScriptError:
                answer = await wire.ask(ANSWER_SECONDS, b"EVAL", SCRIPT.encode(), *arguments)
        except (RedisError, OSError, TimeoutError) as error:
            raise LimitsAway(_said(error)) from None
        now = self._clock()
        found = [int(number) for number in answer.split()]
        told = zip(hits, found[::2], found[1::2], strict=True)
        return {key: Window(used, now + left / 1000) for key, used, left in told}

    async def ping(self) -> None:
        """Connects, with more patience than a request has, and raises LimitsAway where no answer comes in time."""
        try:
            wire = await self._connected(CONNECT_SECONDS)
            await wire.ask(ANSWER_SECONDS, b"PING")
        except (RedisError, OSError, TimeoutError) as error:
            raise LimitsAway(_said(error)) from None

    async def close(self) -> None:
        if self._wire is not None:
            self._wire.close()

    async def _connected(self, seconds: float) -> Wire:
        """The connection, a new one where it is lost. Raises RedisError, OSError, TimeoutError."""
        if self._wire is not None and not self._wire.lost:
            return self._wire
        async with asyncio.timeout(seconds), self._connecting:
            if self._wire is None or self._wire.lost:
                self._wire = await self._connect()
            return self._wire

    async def _connect(self) -> Wire:
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return Wire(connection)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
