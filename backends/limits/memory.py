"""Counting in this process alone: the embedded default, and what an edge does while the shared store is away."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from backends.limits.protocol import Window
from schemas.limits import WINDOW_SECONDS


class MemoryLimits:
    """See Limits. Windows end in the order they began, so those that are over are the first ones."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, Window] = OrderedDict()

    async def add(self, hits: Mapping[str, int]) -> Mapping[str, Window]:
        now = self._clock()
        while self._windows and (oldest := next(iter(self._windows))) and self._windows[oldest].ends_at <= now:
            del self._windows[oldest]
        found = {}
        for key, count in hits.items():
            window = self._windows.get(key)
            if window is None or window.ends_at <= now:
                window = Window(0, now + WINDOW_SECONDS)
                self._windows.pop(key, None)
            found[key] = self._windows[key] = Window(window.used + count, window.ends_at)
        return found

    async def close(self) -> None:
        self._windows.clear()
