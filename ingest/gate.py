"""The gate of the edge: whose request it is, and whether it is within the limits. Every answer says how they stand."""

import hashlib
from ipaddress import ip_address, ip_network
from typing import NamedTuple

import orjson
from starlette.types import Scope

from backends.limits import Limiter, Verdict
from backends.store.catalog import Key
from ingest.answers import Headers, Refusal
from ingest.keys import KeyCache, find_key
from schemas.limits import STRANGERS

IPv6_PREFIX = 64  # what one household has


class Admitted(NamedTuple):
    """Whose request it is, and the headers that tell how its limit stands."""

    key: Key
    headers: Headers


class Gate:
    """For all routes of an edge."""

    def __init__(self, keys: KeyCache, limiter: Limiter, secret: str) -> None:
        self._keys = keys
        self._limiter = limiter
        self._secret = hashlib.blake2b(secret.encode()).digest()

    async def admit(self, scope: Scope, bucket: str) -> Admitted:
        """Raises a 401 Refusal, a 429, and a 503 where the store that knows the keys is away."""
        try:
            key = await self._keys.resolve(find_key(scope["headers"], scope["query_string"]))
        except Refusal as refusal:
            refusal.headers += await self.stranger(scope)
            raise
        verdict = await self._limiter.hit(f"{key.organisation}:{bucket}", key.limits[bucket])
        headers = limit_headers(verdict)
        if verdict.retry_after:
            raise over(verdict, headers)
        return Admitted(key, headers)

    async def stranger(self, scope: Scope) -> Headers:
        """Counts a request that is nobody's against its client's address. Raises a 429 Refusal.

        Only requests that fail count there, so that one bad page cannot shut out an office behind one address.
        """
        verdict = await self._limiter.hit(f"stranger:{self._client(scope)}", STRANGERS)
        headers = limit_headers(verdict)
        if verdict.retry_after:
            raise over(verdict, headers)
        return headers

    def _client(self, scope: Scope) -> str:
        """A digest: no address leaves the process, not to the store of the limits either."""
        try:
            address = ip_address((scope.get("client") or ("",))[0])
        except ValueError:
            return "unknown"
        if address.version == 6:
            address = ip_network((address, IPv6_PREFIX), strict=False).network_address
        return hashlib.blake2b(address.packed, key=self._secret, digest_size=16).hexdigest()


def limit_headers(verdict: Verdict) -> Headers:
    """Documented, on every answer."""
    return [
        (b"x-ratelimit-limit", b"%d" % verdict.limit),
        (b"x-ratelimit-remaining", b"%d" % verdict.remaining),
        (b"x-ratelimit-reset", b"%d" % verdict.reset),
    ]


def over(verdict: Verdict, headers: Headers) -> Refusal:
    """Documented: the same number in the header and in the body."""
    refusal = Refusal(429, "Rate limit exceeded", "rate_limit")
    refusal.body = orjson.dumps({"error": "Rate limit exceeded", "retryAfter": verdict.retry_after})
    refusal.headers = [(b"retry-after", b"%d" % verdict.retry_after), *headers]
    return refusal
