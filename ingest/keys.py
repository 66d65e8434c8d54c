"""Snippet keys: finding one in a request, and what it stands for, through a bounded cache.

A revoked key is gone everywhere within 30 s (documented). While the store is away, a key that was known stays known;
one that was not is a 503, since a 401 would tell a browser to give its events up.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import parse_qs

import sqlalchemy as sa

from backends.store.catalog import Key
from ingest.answers import unauthorized, unavailable
from schemas.ids import is_snippet_key, key_digest
from service import metrics

log = logging.getLogger(__name__)

STORE_ERRORS = (sa.exc.DBAPIError, sa.exc.TimeoutError)
"""Whatever the store answers that is not an answer, missing tables included: nothing is known about the key."""


def find_key(headers: list[tuple[bytes, bytes]], query: bytes) -> str:
    """The key of `Authorization: Bearer KEY`, else of `?key=KEY`; the header wins. Raises a 401 Refusal."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, credential = value.decode("latin-1").partition(" ")
            key = credential.strip() if scheme.lower() == "bearer" else ""
            break
    else:
        key = _from_query(query)
    if not is_snippet_key(key):
        raise unauthorized()
    return key


def _from_query(query: bytes) -> str:
    if b"key=" not in query:
        return ""
    try:
        return parse_qs(query.decode("latin-1"), max_num_fields=100).get("key", [""])[0]
    except ValueError:  # more fields than that
        return ""


class _Known(NamedTuple):
    key: Key
    at: float


class _Answer(NamedTuple):
    key: Key | None


class _Flight(NamedTuple):
    task: "asyncio.Task[_Answer | None]"
    started: float


class KeyCache:
    """Read-through. One look-up in flight per key, a bounded number in all; none for a while after the store failed.

    `fresh` and `negative` are the seconds for which a key counts as known or as unknown, `patience` those that a
    request waits for a look-up, `pause` those without look-ups after a failure. `size` bounds the known keys and,
    apart from them, so that guessing cannot push them out, the unknown ones.
    """

    def __init__(
        self,
        lookup: Callable[[str], Awaitable[Key | None]],
        size: int = 100_000,
        flights: int = 1_000,
        fresh: float = 20.0,
        negative: float = 5.0,
        patience: float = 2.0,
        pause: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._size = size
        self._flights = flights
        self._fresh = fresh
        self._negative = negative
        self._patience = patience
        self._pause = pause
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._in_flight: dict[str, _Flight] = {}
        self._away_until = float("-inf")

    async def resolve(self, key: str) -> Key:
        """Raises a 401 Refusal for a key that is unknown or revoked, a 503 where that cannot be told."""
        known = self._known.get(key)
        if known is not None and self._clock() - known.at < self._fresh:
            metrics.key_lookups.labels("cached").inc()
            self._known.move_to_end(key)
            return known.key
        if self._clock() - self._unknown.get(key, float("-inf")) < self._negative:
            metrics.key_lookups.labels("cached").inc()
            raise unauthorized()
        answer = await self._answer(key)
        if answer is None:
            if known is None:
                raise unavailable("store_away")
            metrics.key_lookups.labels("stale").inc()
            return known.key
        if answer.key is None:
            raise unauthorized()
        return answer.key

    async def _answer(self, key: str) -> _Answer | None:
        """The store's, where it has one within the patience. A client that goes away takes it from nobody else."""
        flight = self._in_flight.get(key) or self._ask(key)
        if flight is None:
            return None
        left = flight.started + self._patience - self._clock()
        done, _ = await asyncio.wait([flight.task], timeout=max(0.0, left))
        return flight.task.result() if done else None

    def _ask(self, key: str) -> _Flight | None:
        """Starts a look-up, unless the store has just failed or too many wait for it."""
        if self._clock() < self._away_until or len(self._in_flight) >= self._flights:
            return None
        flight = self._in_flight[key] = _Flight(asyncio.ensure_future(self._fetch(key)), self._clock())
        return flight

    async def _fetch(self, key: str) -> _Answer | None:
        asked_at = self._clock()  # a slow answer is as old as its question
        try:
            found = await self._lookup(key_digest(key))
        except STORE_ERRORS:
            self._away_until = self._clock() + self._pause
            metrics.key_lookups.labels("store_away").inc()
            return None
        except Exception:
            log.exception("key look-up failed")
            return None
        finally:
            del self._in_flight[key]
        if found is not None:
            metrics.key_lookups.labels("found").inc()
            self._known[key] = _Known(found, asked_at)
            self._unknown.pop(key, None)
        else:
            metrics.key_lookups.labels("unknown").inc()
            self._known.pop(key, None)
            self._unknown[key] = asked_at
        for entries in (self._known, self._unknown):
            while len(entries) > self._size:
                entries.popitem(last=False)
        return _Answer(found)
