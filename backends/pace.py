"""How soon what has come is sent on again, where each sending costs as much as several of its requests."""

import asyncio
import math
from collections.abc import Callable


class Pace:
    """After a sending of `company` requests or more the next one keeps the whole pace; after fewer so much less of it.

    Who has little to do can pay for sendings, and its clients need not wait for company that does not come.
    """

    def __init__(self, company: int) -> None:
        self._company = company
        self._share = 0.0
        self._sent_at = -math.inf  # by the loop's clock

    def schedule(self, loop: asyncio.AbstractEventLoop, seconds: float, send: Callable[[], None]) -> asyncio.Handle:
        """Has `send` called so long after the last sending, or in the next tick where that is over."""
        due = self._sent_at + seconds * self._share
        return loop.call_at(due, send) if due > loop.time() else loop.call_soon(send)

    def sent(self, loop: asyncio.AbstractEventLoop, requests: int) -> None:
        self._sent_at = loop.time()
        self._share = min(1.0, requests / self._company)
