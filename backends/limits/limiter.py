"""Decides over requests: those that come together are counted with one question to the store.

A module of our own, since the kept libraries ask their store once for every request.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from backends.limits.protocol import Limits, LimitsAway, Window
from backends.pace import Pace
from backends.telling import Told, Waiting, into
from schemas.limits import Verdict

COMPANY = 8
"""Requests in a question after which the next one keeps the store's whole pace; see Pace."""


class _Waiting(Waiting[Verdict]):
    limit: int
    hits: int


_Tick = Mapping[str, list[_Waiting]]


class Limiter:
    """On one event loop. Who comes alone is asked about at once; who comes soon after, with all that come meanwhile.

    A question does not wait for the answer to the one before: on a busy machine each wait would be two.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self._limits = limits
        self._clock = clock
        self._tick: defaultdict[str, list[_Waiting]] = defaultdict(list)
        self._next: asyncio.Handle | None = None  # when the tick is asked about
        self._pace = Pace(COMPANY)
        self._under_way: set[asyncio.Task[None]] = set()

    def count(self, key: str, limit: int, hits: int, told: Told[Verdict]) -> None:
        """Counts a request against the key's window; with 0 hits, says how that stands.

        Of all that is counted in one window, wherever, the first `limit` are within, and no more.
        """
        self._tick[key].append(_Waiting(told, limit, hits))
        if self._next is None:
            self._next = self._pace.schedule(asyncio.get_running_loop(), self._limits.pace, self._ask_all)

    def hit(self, key: str, limit: int, hits: int = 1) -> asyncio.Future[Verdict]:
        """The same for who can wait."""
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.count(key, limit, hits, into(verdict))
        return verdict

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._ask_all()
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._limits.close()

    def _ask_all(self) -> None:
        self._next = None
        loop = asyncio.get_running_loop()
        tick, self._tick = self._tick, defaultdict(list)
        self._pace.sent(loop, sum(map(len, tick.values())))
        question = loop.create_task(self._ask(tick))
        self._under_way.add(question)
        question.add_done_callback(self._under_way.discard)

    async def _ask(self, tick: _Tick) -> None:
        """No request is left waiting, whatever comes of it."""
        hits = {key: sum([one.hits for one in waiting]) for key, waiting in tick.items()}
        try:
            self._decide(tick, hits, await self._limits.add(hits))
        except Exception as error:
            _tell_all(tick, error)
        except BaseException:
            _tell_all(tick, LimitsAway("the question was given up"))
            raise

    def _decide(self, tick: _Tick, hits: Mapping[str, int], windows: Mapping[str, Window]) -> None:
        now = self._clock()
        for key, waiting in tick.items():
            window = windows[key]
            n, reset = window.used - hits[key], math.ceil(window.ends_at)
            for one in waiting:
                n += one.hits
                left = one.limit - n
                over = left < 0 and one.hits > 0
                retry_after = max(1, math.ceil(window.ends_at - now)) if over else 0
                one.tell(Verdict(one.limit, left if left > 0 else 0, reset, retry_after))


def _tell_all(tick: _Tick, error: Exception) -> None:
    """Those who have not been told yet."""
    for waiting in tick.values():
        for one in waiting:
            one.tell(error)
