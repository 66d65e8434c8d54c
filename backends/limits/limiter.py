"""Decides over requests: those of one tick of the event loop are counted with one question to the store.

A module of our own, since the kept libraries ask their store once for every request.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from backends.limits.protocol import Limits


class Verdict(NamedTuple):
    """`reset` is in epoch seconds. `retry_after` is in whole seconds, 0 for a request that is within the limit."""

    limit: int
    remaining: int
    reset: int
    retry_after: int


class _Waiting(NamedTuple):
    limit: int
    verdict: "asyncio.Future[Verdict]"


class Limiter:
    """On one event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self._limits = limits
        self._clock = clock
        self._tick: defaultdict[str, list[_Waiting]] = defaultdict(list)
        self._asking: set[asyncio.Task[None]] = set()

    async def hit(self, key: str, limit: int) -> Verdict:
        """Counts one request against the key's window."""
        loop = asyncio.get_running_loop()
        if not self._tick:
            loop.call_soon(self._flush)
        waiting = _Waiting(limit, loop.create_future())
        self._tick[key].append(waiting)
        return await waiting.verdict

    async def close(self) -> None:
        await self._limits.close()

    def _flush(self) -> None:
        tick, self._tick = self._tick, defaultdict(list)
        task = asyncio.ensure_future(self._ask(tick))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, tick: dict[str, list[_Waiting]]) -> None:
        windows = await self._limits.add({key: len(waiting) for key, waiting in tick.items()})
        now = self._clock()
        for key, waiting in tick.items():
            window = windows[key]
            for n, one in enumerate(waiting, window.used - len(waiting) + 1):
                left = max(1, math.ceil(window.ends_at - now))
                over = n > one.limit
                if not one.verdict.done():  # its client may have gone
                    one.verdict.set_result(
                        Verdict(one.limit, max(0, one.limit - n), math.ceil(window.ends_at), left if over else 0)
                    )
