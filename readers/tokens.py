"""Session tokens, as Supabase issues them. The algorithm comes from the settings, never from the token."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import jwt

from schemas.ids import is_uuid
from service import metrics
from service.settings import Settings, SettingsError

MAX_TOKEN_BYTES = 8 * 1024
MAX_DOCUMENT_BYTES = 256 * 1024
REFETCH_SECONDS = 60.0  # a flood of unknown key ids fetches no more often than this
FRESH_SECONDS = 600.0
AUDIENCE = "authenticated"


class Unauthorized(Exception):
    """The token is not valid. Why is nobody's business but the metric's."""


class Session(NamedTuple):
    """Whose session it is, and the one organisation it is narrowed to, if it is."""

    user: str
    organisation: str | None


Keys = Callable[[str | None], Any]
"""Gives the key for a `kid`. Raises Unauthorized."""


class JwksKeys:
    """The project's public keys by `kid`, fetched when needed and kept while the endpoint is away. Thread safe."""

    def __init__(
        self,
        url: str,
        algorithm: str,
        fetch: Callable[[str], bytes] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise SettingsError("ZENSTEP_JWKS_URL must be an http or https address")
        self._url = url
        self._algorithm = algorithm
        self._fetch = fetch or _fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str | None, Any] = {}
        self._tried_at = float("-inf")

    def __call__(self, kid: str | None) -> Any:
        """Raises Unauthorized where there is no such key."""
        with self._lock:
            age = self._clock() - self._tried_at
            if age > (FRESH_SECONDS if kid in self._keys else REFETCH_SECONDS):
                self._tried_at = self._clock()
                self._refresh()
            key = self._keys.get(kid)
        if key is None:
            raise Unauthorized("kid")
        return key

    def _refresh(self) -> None:
        try:
            document = jwt.PyJWKSet.from_json(self._fetch(self._url).decode())
        except (httpx.HTTPError, jwt.PyJWTError, ValueError, AttributeError, TypeError):
            metrics.jwks_fetches.labels("failed").inc()
            return
        metrics.jwks_fetches.labels("fetched").inc()
        # A document may hold keys of several kinds; a key of another kind than ours is not one of ours.
        self._keys = {key.key_id: key.key for key in document.keys if key.algorithm_name == self._algorithm}


class TokenVerifier:
    """Checks signature, `exp`, `nbf`, `iss`, `aud`, `role`, `sub`. `user_metadata` is the user's own and never read."""

    def __init__(self, algorithm: str, keys: Keys, issuer: str | None) -> None:
        self._algorithm = algorithm
        self._keys = keys
        self._issuer = issuer

    def verify(self, token: str) -> Session:
        """May block for a fetch of keys. Raises Unauthorized."""
        try:
            session = self._verify(token)
        except (jwt.PyJWTError, Unauthorized, ValueError, TypeError) as error:
            metrics.token_checks.labels("refused").inc()
            raise Unauthorized(type(error).__name__) from None
        metrics.token_checks.labels("valid").inc()
        return session

    def _verify(self, token: str) -> Session:
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthorized("size")
        header = jwt.get_unverified_header(token)
        if header.get("alg") != self._algorithm:
            raise Unauthorized("alg")
        claims: Mapping[str, Any] = jwt.decode(
            token,
            self._keys(header.get("kid")),
            algorithms=[self._algorithm],
            audience=AUDIENCE,
            issuer=self._issuer,
            options={"require": ["exp", "sub", "aud"] + (["iss"] if self._issuer else [])},
        )
        user = claims["sub"]
        if claims.get("role") != AUDIENCE or not isinstance(user, str) or not is_uuid(user):
            raise Unauthorized("claims")
        metadata = claims.get("app_metadata")
        organisation = metadata.get("org_id") if isinstance(metadata, dict) else None
        if organisation is not None and not (isinstance(organisation, str) and is_uuid(organisation)):
            raise Unauthorized("claims")
        return Session(user.lower(), organisation.lower() if organisation else None)


def from_settings(settings: Settings) -> TokenVerifier:
    """Raises SettingsError where the key for the chosen algorithm is not set."""
    keys: Keys
    if settings.jwt_algorithm == "HS256":
        secret = settings.require("jwt_secret")
        keys = lambda _: secret  # noqa: E731
    else:
        keys = JwksKeys(settings.require("jwks_url"), settings.jwt_algorithm)
    return TokenVerifier(settings.jwt_algorithm, keys, settings.jwt_issuer)


def _fetch(url: str) -> bytes:
    with httpx.stream("GET", url, timeout=5.0, follow_redirects=False) as answer:
        answer.raise_for_status()
        document = b""
        for chunk in answer.iter_bytes():
            document += chunk
            if len(document) > MAX_DOCUMENT_BYTES:
                raise ValueError("the JWKS document is too large")
    return document
