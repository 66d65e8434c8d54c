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
from schemas.limits import WINDOW_SECONDS

ANSWER_SECONDS = 0.1
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

    One connection and the command's own bytes: through the library's client a question costs five times as much.
    """

    def __init__(self, url: str, seconds: float = WINDOW_SECONDS, clock: Callable[[], float] = time.time) -> None:
        self._milliseconds = b"%d" % round(seconds * 1000)
        self._clock = clock
        self._pool = redis.asyncio.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,  # every wait is bounded here
            socket_connect_timeout=None,
        )
        self._connection: Any = None

    async def add(self, hits: Mapping[str, int]) -> Mapping[str, Window]:
        keys = [(PREFIX + key).encode() for key in hits]
        arguments = [b"%d" % len(keys), *keys, self._milliseconds, *[b"%d" % count for count in hits.values()]]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                try:
                    answer = await self._ask(b"EVALSHA", _DIGEST, *arguments)
                except NoScriptError:
                    answer = await self._ask(b"EVAL", SCRIPT.encode(), *arguments)
        except (RedisError, OSError, TimeoutError) as error:
            raise LimitsAway(_said(error)) from None
        now = self._clock()
        found = [int(number) for number in answer.split()]
        told = zip(hits, found[::2], found[1::2], strict=True)
        return {key: Window(used, now + left / 1000) for key, used, left in told}

    async def ping(self) -> None:
        """Connects, with more patience than a request has, and raises LimitsAway where no answer comes in time."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._ask(b"PING")
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._ask(b"PING")
        except (RedisError, OSError, TimeoutError) as error:
            raise LimitsAway(_said(error)) from None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    async def _ask(self, *words: bytes) -> bytes:
        """The answer. A question that was not answered leaves a connection on which an answer may still come."""
        connection = self._connection or await self._connect()
        try:
            await connection.send_packed_command(_packed(words), check_health=False)
            answer: bytes = await connection.read_response(disable_decoding=True)
        except NoScriptError:
            raise
        except BaseException:
            self._connection = None
            await connection.disconnect(nowait=True)
            raise
        return answer

    async def _connect(self) -> Any:
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection
        return connection


def _packed(words: tuple[bytes, ...]) -> bytes:
    """A command as Redis reads it."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
