"""Snippet keys: finding one in a request, and what it stands for, through the cache of ingest/cache.py.

A revoked key is gone everywhere within 30 s (documented). While the store is away, a key that was known stays known;
one that was not is a 503, since a 401 would tell a browser to give its events up.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from urllib.parse import parse_qs

from backends.store.keys import Key
from ingest.answers import unauthorized
from ingest.cache import ReadThrough
from schemas.ids import is_snippet_key, key_digest
from service import metrics
from service.fields import values

MAX_KNOWN = 64  # bytes of a header that is remembered


def find_key(headers: list[tuple[bytes, bytes]], query: bytes) -> str:
    """The key of `Authorization: Bearer KEY`, else of `?key=KEY`; the header wins. Raises a 401 Refusal."""
    given = values(headers, b"authorization")
    if given:
        header = given[0]
        key = (_bearer if len(header) <= MAX_KNOWN else _bearer.__wrapped__)(header)
    else:
        key = _from_query(query)
    if not key:
        raise unauthorized()
    return key


@lru_cache(16_384)
def _bearer(header: bytes) -> str:
    """The key in it, else ""."""
    scheme, _, credential = header.decode("latin-1").partition(" ")
    key = credential.strip()
    return key if scheme.lower() == "bearer" and is_snippet_key(key) else ""


def _from_query(query: bytes) -> str:
    """The key in it, else ""."""
    if b"key=" not in query:
        return ""
    try:
        key = parse_qs(query.decode("latin-1"), max_num_fields=100).get("key", [""])[0]
    except ValueError:  # more fields than that
        return ""
    return key if is_snippet_key(key) else ""


class KeyCache(ReadThrough[Key]):
    """Keys by what they are; the store is asked for their digests. Known ones stay known while it is away."""

    def __init__(
        self,
        lookup: Callable[[list[str]], Awaitable[Mapping[str, Key]]],
        size: int = 100_000,
        flights: int = 1_000,
        fresh: float = 20.0,
        renew: float = 10.0,
        negative: float = 5.0,
        patience: float = 2.0,
        pause: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        async def of_keys(keys: list[str]) -> dict[str, Key]:
            key_of = {key_digest(key): key for key in keys}
            return {key_of[digest]: found for digest, found in (await lookup(list(key_of))).items()}

        super().__init__(
            of_keys,
            metrics.key_lookups,
            size=size,
            flights=flights,
            at_once=2,  # so that one which hangs holds up nobody
            together=500,
            fresh=fresh,
            renew=renew,
            negative=negative,
            patience=patience,
            pause=pause,
            clock=clock,
        )

    async def resolve(self, key: str) -> Key:
        """Raises a 401 Refusal for a key that is unknown or revoked, a 503 where that cannot be told."""
        found = await self.get(key)
        if found is None:
            raise unauthorized()
        return found
