"""The public keys that session tokens are signed with, by `kid`: the project's JWKS document, kept while it is away."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import orjson

from readers.keys import KeysAway, UnknownKey
from service import metrics
from service.settings import SettingsError

log = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES = 256 * 1024
FETCH_SECONDS = 5.0
FRESH_SECONDS = 600.0
REFETCH_SECONDS = 15.0  # a flood of unknown key ids fetches no more often, and delays a new key by no more


class JwksKeys:
    """One fetch at a time, in the background: only a token with an unknown `kid` waits for it. For one event loop."""

    def __init__(self, url: str, algorithm: str, clock: Callable[[], float] = time.monotonic) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise SettingsError("ZENSTEP_JWKS_URL must be an http or https address")
        self._url = url
        self._algorithm = algorithm
        self._clock = clock
        self._keys: dict[str | None, Any] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._tried_at = self._fetched_at = float("-inf")

    async def __call__(self, kid: str | None) -> Any:
        """Raises UnknownKey, KeysAway."""
        now = self._clock()
        wanted = kid not in self._keys or now - self._fetched_at > FRESH_SECONDS
        if wanted and self._fetching is None and now - self._tried_at > REFETCH_SECONDS:
            self._tried_at = now
            self._fetching = asyncio.create_task(self._refresh())
        if kid not in self._keys and self._fetching is not None:
            # A client that goes away must not take the fetch from those who wait for it too.
            await asyncio.shield(self._fetching)
        key = self._keys.get(kid)
        if key is None:
            raise UnknownKey if self._fetched_at >= self._tried_at else KeysAway
        return key

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                self._keys = _keys(await _fetch(self._url), self._algorithm)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            metrics.jwks_fetches.labels("failed").inc()
            log.warning("JWKS document not fetched", extra={"problem": type(error).__name__})
        else:
            self._fetched_at = self._clock()
            metrics.jwks_fetches.labels("fetched").inc()
        finally:
            self._fetching = None


def _keys(document: bytes, algorithm: str) -> dict[str | None, Any]:
    """The keys of this algorithm; a document may hold others too. Raises ValueError where it is no JWKS document."""
    parsed = orjson.loads(document)
    entries = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a JWKS document")
    found: dict[str | None, Any] = {}
    for entry in entries:
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, AttributeError, LookupError, TypeError, ValueError):
            continue  # a kind of key that is not known here, or none at all
        kid = key.key_id
        if key.algorithm_name == algorithm and key.public_key_use in (None, "sig") and isinstance(kid, str | None):
            found[kid] = key.key
    return found


async def _fetch(url: str) -> bytes:
    async with (
        httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False) as client,
        client.stream("GET", url) as answer,
    ):
        answer.raise_for_status()
        document = b""
        async for chunk in answer.aiter_bytes():
            document += chunk
            if len(document) > MAX_DOCUMENT_BYTES:
                raise ValueError("the JWKS document is too large")
    return document
