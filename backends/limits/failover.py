"""Counts in this process while the shared store is away, so that an outage there refuses and delays nobody."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from backends.limits.memory import MemoryLimits
from backends.limits.protocol import Limits, LimitsAway, Window

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0


class Shared(Limits, Protocol):
    """Limits in a store that may be away."""

    async def ping(self) -> None:
        """Raises LimitsAway where it would not answer."""


class FailoverLimits:
    """See Limits; never raises LimitsAway. `tell` hears 1 when the store is found away, -1 when it is back.

    The question that finds the store away is the only one to wait for it: from then on it is asked apart from requests.
    Its last known counts are where the own ones begin; what is counted meanwhile is not added to it later.
    """

    def __init__(
        self, shared: Shared, own: MemoryLimits, tell: Callable[[int], None], pause: float = PAUSE_SECONDS
    ) -> None:
        self._shared = shared
        self._own = own
        self._tell = tell
        self._pause = pause
        self._coming_back: asyncio.Task[None] | None = None

    @property
    def pace(self) -> float:
        return self._shared.pace if self._coming_back is None else self._own.pace

    async def add(self, hits: Mapping[str, int]) -> Mapping[str, Window]:
        if self._coming_back is None:
            try:
                windows = await self._shared.add(hits)
            except Exception as error:  # whatever it is, it is no reason to refuse a request
                self._leave(error)
            else:
                self._own.know(windows)
                return windows
        return await self._own.add(hits)

    async def close(self) -> None:
        if self._coming_back is not None:
            self._coming_back.cancel()
            await asyncio.wait([self._coming_back])
            self._tell(-1)
        await self._shared.close()

    def _leave(self, error: Exception) -> None:
        if self._coming_back is not None:
            return
        log.warning("limits are counted by this process alone", extra={"problem": str(error) or type(error).__name__})
        self._tell(1)
        self._coming_back = asyncio.create_task(self._come_back())

    async def _come_back(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            try:
                await self._shared.ping()
            except LimitsAway:
                continue
            except Exception:  # this loop is the only way back
                log.exception("store of limits not asked")
                continue
            break
        log.warning("limits are counted together again")
        self._tell(-1)
        self._coming_back = None
