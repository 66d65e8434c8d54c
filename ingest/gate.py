"""The gate of the edge: whose request it is, and whether it is within the limits. Every answer says how they stand."""

from typing import NamedTuple

from starlette.types import Scope

from backends.limits import Limiter
from backends.store.catalog import Key
from ingest.answers import Headers, Refusal
from ingest.keys import KeyCache, find_key
from schemas.limits import STRANGERS, Verdict, bucket_key, stranger_key
from service.clients import Clients


class Admitted(NamedTuple):
    """Whose request it is, and the headers that tell how its limit stands."""

    key: Key
    headers: Headers


class Gate:
    """For all routes of an edge."""

    def __init__(self, keys: KeyCache, limiter: Limiter, clients: Clients) -> None:
        self._keys = keys
        self._limiter = limiter
        self._clients = clients

    async def admit(self, scope: Scope, bucket: str) -> Admitted:
        """Raises a 401 Refusal, a 429, and a 503 where the store that knows the keys is away."""
        try:
            key = await self._keys.resolve(find_key(scope["headers"], scope["query_string"]))
        except Refusal as refusal:
            # That the store is away is no fault of the client's, so that it costs nothing.
            refusal.headers += await self.stranger(scope, hits=0 if refusal.status == 503 else 1)
            raise
        verdict = await self._limiter.hit(bucket_key(key.organisation, bucket), key.limits[bucket])
        return Admitted(key, _within(verdict))

    async def stranger(self, scope: Scope, hits: int = 1) -> Headers:
        """Counts a request that is nobody's against its client's address. Raises a 429 Refusal, but not for 0 hits.

        Only requests that fail count there, so that one bad page cannot shut out an office behind one address.
        """
        verdict = await self._limiter.hit(stranger_key(self._clients.digest(scope)), STRANGERS, hits)
        return _within(verdict)


def _within(verdict: Verdict) -> Headers:
    """The headers of a request that is within its limit. Raises a 429 Refusal for one that is not."""
    if verdict.retry_after:
        refusal = Refusal(429, "Rate limit exceeded", "rate_limit", headers=verdict.headers())
        refusal.body = verdict.body()
        raise refusal
    return verdict.headers()
