"""What is in use and grows old is looked up again ahead of time, many together, before anybody has to wait for it."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

SECONDS = 1.0
"""For which those that are due wait for others."""


class Renewal:
    """One question at a time, on one event loop."""

    def __init__(self, renew: Callable[[Collection[str]], Awaitable[None]]) -> None:
        self._renew = renew
        self._due: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def add(self, key: str) -> None:
        """Has it looked up soon. As often as it is asked for: it is due until it is new."""
        self._due.add(key)
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        try:
            while self._due:
                await asyncio.sleep(SECONDS)
                due, self._due = self._due, set()
                await self._renew(due)
        finally:
            self._task = None
