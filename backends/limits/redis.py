"""Counting in a Redis (6 or later) or Valkey that all edges share: one script call for all keys of a tick.

One server with or without replicas, not a cluster: a script's keys would have to lie on one node.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from backends.limits.protocol import LimitsAway, Window
from schemas.limits import WINDOW_SECONDS

ANSWER_SECONDS = 0.1
CONNECT_SECONDS = 5.0
PREFIX = "zenstep:limit:"
# A key has no time to live when it is new, and by some accident: it would count for ever.
SCRIPT = """
local found = {}
for i, key in ipairs(KEYS) do
    local used = redis.call('INCRBY', key, ARGV[i + 1])
    local left = redis.call('PTTL', key)
    if left < 0 then
        redis.call('PEXPIRE', key, ARGV[1])
        left = tonumber(ARGV[1])
    end
    found[i] = {used, left}
end
return found
"""


class RedisLimits:
    """See Limits. Connects when it is first asked, and again after the connection is lost."""

    def __init__(self, url: str, seconds: float = WINDOW_SECONDS, clock: Callable[[], float] = time.time) -> None:
        self._milliseconds = round(seconds * 1000)
        self._clock = clock
        self._redis = redis.asyncio.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=None,  # every wait is bounded here
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        self._add = self._redis.register_script(SCRIPT)

    async def add(self, hits: Mapping[str, int]) -> Mapping[str, Window]:
        keys = [PREFIX + key for key in hits]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await self._add(keys, [self._milliseconds, *hits.values()])
        except (RedisError, OSError, TimeoutError) as error:
            raise LimitsAway(_said(error)) from None
        now = self._clock()
        return {key: Window(used, now + left / 1000) for key, (used, left) in zip(hits, found, strict=True)}

    async def ping(self) -> None:
        """Connects, with more patience than a request has, and raises LimitsAway where no answer comes in time."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._redis.ping()
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise LimitsAway(_said(error)) from None

    async def close(self) -> None:
        await self._redis.aclose()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
