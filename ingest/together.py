"""Keys that are asked about together: what comes while a question is out waits for the next, with all that come too."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any


class Together:
    """On one event loop, `at_once` questions at a time, of `most` keys each. `ask` is not to raise.

    A question takes up what comes within `pause` seconds before it; without one, what comes in the same tick.
    """

    def __init__(
        self, ask: Callable[[list[str]], Awaitable[None]], at_once: int = 1, most: int = 1_000, pause: float = 0.0
    ) -> None:
        self._ask = ask
        self._at_once = at_once
        self._most = most
        self._pause = pause
        self._waiting: dict[str, None] = {}
        self._asking: set[asyncio.Task[Any] | None] = set()

    def add(self, key: str) -> None:
        """Has it asked about soon, once however often it is added until then."""
        self._waiting[key] = None
        if len(self._asking) < self._at_once:
            self._asking.add(asyncio.create_task(self._run()))

    @property
    def idle(self) -> bool:
        """Whether no question is out, and none waits."""
        return not self._asking

    async def _run(self) -> None:
        try:
            while self._waiting:
                if self._pause:
                    await asyncio.sleep(self._pause)
                keys = list(islice(self._waiting, self._most))
                for key in keys:
                    del self._waiting[key]
                await self._ask(keys)
        finally:
            self._asking.discard(asyncio.current_task())  # at once: who comes next has to begin anew
