"""The gate of the edge: whose request it is, and whether it is within the limits. Every answer says how they stand."""

import msgspec
from starlette.types import Scope

from backends.limits import Limiter
from backends.store.keys import Key
from backends.telling import Told
from ingest.answers import Refusal
from ingest.keys import KeyCache, find_key
from schemas.limits import STRANGERS, Verdict, bucket_key, stranger_key
from service.clients import Clients


class Admitted(msgspec.Struct, frozen=True):
    """Whose request it is, and how its limit stands."""

    key: Key
    limits: Verdict


class Gate:
    """For all routes of an edge."""

    def __init__(self, keys: KeyCache, limiter: Limiter, clients: Clients) -> None:
        self._keys = keys
        self._limiter = limiter
        self._clients = clients

    def key_at_hand(self, scope: Scope) -> Key | None:
        """Whose request it is, where that is known without waiting."""
        try:
            return self._keys.at_hand(find_key(scope["headers"], scope["query_string"]))
        except Refusal:
            return None

    def count(self, key: Key, bucket: str, told: Told[Verdict]) -> None:
        """What `told` hears is to be `within`."""
        self._limiter.count(*_window(key, bucket), 1, told)

    async def admit(self, scope: Scope, bucket: str) -> Admitted:
        """Raises a 401 Refusal, a 429, and a 503 where the store that knows the keys is away."""
        try:
            given = find_key(scope["headers"], scope["query_string"])
            key = self._keys.at_hand(given) or await self._keys.resolve(given)
        except Refusal as refusal:
            # That the store is away is no fault of the client's, so that it costs nothing.
            limits = await self.stranger(scope, hits=0 if refusal.status == 503 else 1)
            refusal.headers += limits.headers()
            raise
        verdict = await self._limiter.hit(*_window(key, bucket))
        return Admitted(key, within(verdict))

    async def stranger(self, scope: Scope, hits: int = 1) -> Verdict:
        """Counts a request that is nobody's against its client's address. Raises a 429 Refusal, but not for 0 hits.

        Only requests that fail count there, so that one bad page cannot shut out an office behind one address.
        """
        verdict = await self._limiter.hit(stranger_key(self._clients.digest(scope)), STRANGERS, hits)
        return within(verdict)


def _window(key: Key, bucket: str) -> tuple[str, int]:
    return bucket_key(key.organisation, bucket), key.limits[bucket]


def within(verdict: Verdict) -> Verdict:
    """Of a request that is within its limit. Raises a 429 Refusal for one that is not."""
    if verdict.retry_after:
        refusal = Refusal(429, "Rate limit exceeded", "rate_limit", headers=verdict.headers())
        refusal.body = verdict.body()
        raise refusal
    return verdict
