"""Snippet keys: finding one in a request, and what it stands for, through a bounded cache.

A revoked key is gone everywhere within `fresh` seconds. While the store is away, a key that was known stays known;
one that was not is a 503, since a 401 would tell a browser to give its events up.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import parse_qs

from backends.store.catalog import Key
from backends.store.engine import ENVIRONMENT_ERRORS
from ingest.answers import unauthorized, unavailable
from schemas.ids import is_snippet_key, key_digest
from service import metrics


def find_key(headers: list[tuple[bytes, bytes]], query: bytes) -> str:
    """The key of `Authorization: Bearer KEY`, else of `?key=KEY`; the header wins. Raises a 401 Refusal."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, credential = value.decode("latin-1").partition(" ")
            key = credential.strip() if scheme.lower() == "bearer" else ""
            break
    else:
        values = parse_qs(query.decode("latin-1"), max_num_fields=100).get("key", []) if b"key=" in query else []
        key = values[0] if values else ""
    if not is_snippet_key(key):
        raise unauthorized()
    return key


class _Entry(NamedTuple):
    key: Key | None
    at: float


class KeyCache:
    """Read-through: known keys for `fresh` seconds, unknown ones for `negative`; one look-up in flight per key."""

    def __init__(
        self,
        lookup: Callable[[str], Awaitable[Key | None]],
        size: int = 100_000,
        fresh: float = 20.0,
        negative: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._size = size
        self._fresh = fresh
        self._negative = negative
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._in_flight: dict[str, asyncio.Task[Key]] = {}

    async def resolve(self, key: str) -> Key:
        """Raises a 401 Refusal for a key that is unknown or revoked, a 503 where that cannot be told."""
        entry = self._entries.get(key)
        if entry is not None:
            age = self._clock() - entry.at
            if entry.key is not None and age < self._fresh:
                self._entries.move_to_end(key)
                metrics.key_lookups.labels("cached").inc()
                return entry.key
            if entry.key is None and age < self._negative:
                metrics.key_lookups.labels("cached").inc()
                raise unauthorized()
        task = self._in_flight.get(key)
        if task is None:
            task = self._in_flight[key] = asyncio.ensure_future(self._fetch(key, entry))
            task.add_done_callback(lambda done: self._finished(key, done))
        # A client that goes away must not take the look-up from those who wait for the same key.
        return await asyncio.shield(task)

    def _finished(self, key: str, task: asyncio.Task[Key]) -> None:
        self._in_flight.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, also where every waiter has gone

    async def _fetch(self, key: str, stale: _Entry | None) -> Key:
        try:
            found = await self._lookup(key_digest(key))
        except ENVIRONMENT_ERRORS:
            metrics.key_lookups.labels("store_away").inc()
            if stale is not None and stale.key is not None:
                return stale.key
            raise unavailable("store_away") from None
        metrics.key_lookups.labels("found" if found is not None else "unknown").inc()
        self._entries[key] = _Entry(found, self._clock())
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)
        if found is None:
            raise unauthorized()
        return found
