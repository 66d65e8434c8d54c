"""A read-through cache between requests and the store: bounded, shared by all requests of an edge, and patient.

While the store is away, what was known stays known; what was not cannot be told, and the caller has to say so.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Generic, NamedTuple, TypeVar

import sqlalchemy as sa

from ingest.answers import unavailable
from ingest.together import Together
from service.counts import LoopCounter

log = logging.getLogger(__name__)

RENEWAL_SECONDS = 1.0
"""For which those that are to be renewed wait for others."""

STORE_ERRORS = (sa.exc.DBAPIError, sa.exc.TimeoutError)
"""Whatever the store answers that is not an answer, missing tables included: nothing is known."""

V = TypeVar("V")


class _Known(NamedTuple, Generic[V]):
    value: V
    at: float


_Answer = Mapping[str, V]
"""What the store knows of the keys that it was asked for."""


class _Flight(NamedTuple, Generic[V]):
    answer: "asyncio.Future[_Answer[V] | None]"
    started: float


class ReadThrough(Generic[V]):
    """One look-up in flight per key, a bounded number in all; none for a while after the store failed.

    `lookup` is asked for up to `together` keys, `at_once` times at once, and answers without those that are unknown.
    `fresh` and `negative` are the seconds for which a key counts as known or as unknown, `stale` those for which a
    known one goes on while the store is away, `patience` those that a request waits for a look-up, `pause` those
    without look-ups after a failure. `size` bounds the known keys, each by its `weight`, and the number of unknown
    ones, apart from them, so that guessing cannot push the known ones out. `lookups` counts by what answered.

    A known key that is asked for `renew` seconds after its look-up or later is looked up anew together with others,
    while it is still fresh, so that nobody waits for it.
    """

    def __init__(
        self,
        lookup: Callable[[list[str]], Awaitable[Mapping[str, V]]],
        lookups: LoopCounter,
        size: int,
        flights: int = 1_000,
        at_once: int = 4,
        together: int = 1,
        fresh: float = 20.0,
        renew: float = inf,
        negative: float = 5.0,
        stale: float = inf,
        patience: float = 2.0,
        pause: float = 1.0,
        weight: Callable[[V], int] = lambda value: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._lookups = lookups
        self._cached = lookups.labels("cached")
        self._size = size
        self._renew = renew
        self._questions = Together(self._fetch, at_once, together)
        self._renewal = Together(self._renew_all, most=10_000, pause=RENEWAL_SECONDS)
        self._flights = flights
        self._fresh = fresh
        self._negative = negative
        self._stale = stale
        self._patience = patience
        self._pause = pause
        self._weight = weight
        self._clock = clock
        self._known: OrderedDict[str, _Known[V]] = OrderedDict()
        self._weighs = 0
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._in_flight: dict[str, _Flight[V]] = {}
        self._away_until = -inf

    def at_hand(self, key: str, fresh: float | None = None) -> V | None:
        """What is known and fresh, which nobody need wait for."""
        known = self._known.get(key)
        if known is None:
            return None
        age = self._clock() - known.at
        if age >= (self._fresh if fresh is None else fresh):
            return None
        if age >= self._renew:
            self._renewal.add(key)
        self._cached.inc()
        self._known.move_to_end(key)
        return known.value

    async def get(self, key: str, fresh: float | None = None, stale: float | None = None) -> V | None:
        """None for a key that is unknown. Raises a 503 Refusal where that cannot be told."""
        found = self.at_hand(key, fresh)
        if found is not None:
            return found
        if self._clock() - self._unknown.get(key, -inf) < self._negative:
            self._cached.inc()
            return None
        known = self._known.get(key)
        answer = await self._answer(key)
        if answer is not None:
            return answer.get(key)
        if known is None or self._clock() - known.at >= (self._stale if stale is None else stale):
            raise unavailable("store_away")
        self._lookups.labels("stale").inc()
        return known.value

    async def _answer(self, key: str) -> _Answer[V] | None:
        """The store's, where it has one within the patience. A client that goes away takes it from nobody else."""
        flight = self._in_flight.get(key) or self._ask(key)
        if flight is None:
            return None
        left = flight.started + self._patience - self._clock()
        done, _ = await asyncio.wait([flight.answer], timeout=max(0.0, left))
        return flight.answer.result() if done else None

    def _ask(self, key: str) -> _Flight[V] | None:
        """Begins a look-up, unless the store has just failed or too many wait for it."""
        if self._clock() < self._away_until or len(self._in_flight) >= self._flights:
            return None
        answer = asyncio.get_running_loop().create_future()
        flight = self._in_flight[key] = _Flight(answer, self._clock())
        self._questions.add(key)
        return flight

    async def _fetch(self, keys: list[str]) -> None:
        answer = None
        try:
            if self._clock() >= self._away_until:  # it may have failed others while these waited
                answer = await self._look_up(keys)
        finally:
            for key in keys:
                self._in_flight.pop(key).answer.set_result(answer)

    async def _renew_all(self, keys: list[str]) -> None:
        now = self._clock()
        old = [key for key in keys if key in self._known and now - self._known[key].at >= self._renew]
        if old and now >= self._away_until:
            await self._look_up(old)

    async def _look_up(self, keys: list[str]) -> _Answer[V] | None:
        """None where the store has no answer."""
        asked_at = self._clock()  # a slow answer is as old as its question
        try:
            found = await self._lookup(keys)
        except STORE_ERRORS:
            self._away_until = self._clock() + self._pause
            self._lookups.labels("store_away").inc()
            return None
        except Exception:
            log.exception("look-up failed")
            return None
        for key in keys:
            self._learn(key, found.get(key), asked_at)
        return found

    def _learn(self, key: str, found: V | None, asked_at: float) -> None:
        known = self._known.get(key)
        if known is not None and known.at > asked_at:  # from a question that was put later
            return
        self._forget(key)
        if found is not None:
            self._lookups.labels("found").inc()
            self._known[key] = _Known(found, asked_at)
            self._weighs += self._weight(found)
            self._unknown.pop(key, None)
        else:
            self._lookups.labels("unknown").inc()
            self._unknown[key] = asked_at
        while self._weighs > self._size:
            self._forget(next(iter(self._known)))
        while len(self._unknown) > self._size:
            self._unknown.popitem(last=False)

    def _forget(self, key: str) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._weighs -= self._weight(known.value)
