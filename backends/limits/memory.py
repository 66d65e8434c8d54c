"""Counting in this process alone: the embedded default, and what an edge does while the shared store is away."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from backends.limits.protocol import Window
from schemas.limits import WINDOW_SECONDS


class MemoryLimits:
    """See Limits. Holds `size` windows at most; more than that, and the longest idle are forgotten."""

    pace = 0.0

    def __init__(
        self, seconds: float = WINDOW_SECONDS, size: int = 200_000, clock: Callable[[], float] = time.time
    ) -> None:
        self._seconds = seconds
        self._size = size
        self._clock = clock
        self._windows: OrderedDict[str, Window] = OrderedDict()  # longest idle first

    async def add(self, hits: Mapping[str, int]) -> Mapping[str, Window]:
        now = self._clock()
        found = {}
        for key, count in hits.items():
            window = self._windows.get(key)
            if window is None or window.ends_at <= now:
                window = Window(0, now + self._seconds)
            found[key] = Window(window.used + count, window.ends_at)
        self.know(found)
        return found

    def know(self, windows: Mapping[str, Window]) -> None:
        """Takes over how far others have counted."""
        for key, window in windows.items():
            self._windows[key] = window
            self._windows.move_to_end(key)
        now = self._clock()
        while self._windows:
            longest_idle = next(iter(self._windows))
            if self._windows[longest_idle].ends_at > now and len(self._windows) <= self._size:
                break
            del self._windows[longest_idle]

    async def close(self) -> None:
        self._windows.clear()
