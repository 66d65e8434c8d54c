"""What the edge asks the store for one request alone: on threads of its own, few at a time, and not for ever."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ingest.answers import unavailable
from ingest.cache import STORE_ERRORS

T = TypeVar("T")

WAITING = 200
PATIENCE_SECONDS = 5.0


class StoreReads:
    """Apart from the look-ups of keys and flows, which must not wait behind these."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._waiting = 0

    async def ask(self, question: Callable[..., T], *arguments: object) -> T:
        """Raises a 503 Refusal where the store is away, slow, or asked too much."""
        if self._waiting >= WAITING:
            raise unavailable("store_busy")
        asked = asyncio.get_running_loop().run_in_executor(self._threads, question, *arguments)
        self._waiting += 1
        asked.add_done_callback(self._answered)
        done, _ = await asyncio.wait([asked], timeout=PATIENCE_SECONDS)
        if not done:
            raise unavailable("store_away")
        try:
            return asked.result()
        except STORE_ERRORS:
            raise unavailable("store_away") from None

    def _answered(self, asked: "asyncio.Future[T]") -> None:
        self._waiting -= 1
        if not asked.cancelled():
            asked.exception()  # nobody may be waiting for it any more
