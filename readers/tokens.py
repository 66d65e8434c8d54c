"""Session tokens, as Supabase issues them. The algorithm comes from the settings, never from the token."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jwt

from readers.keys import Keys, UnknownKey
from schemas.ids import is_uuid
from service import metrics
from service.settings import Settings

MAX_TOKEN_BYTES = 8 * 1024
AUDIENCE = "authenticated"
# How far `nbf` and `iat` may lie ahead: a token is used the moment it is issued, and two machines' clocks differ (our
# decision). `exp` has no such slack: an expired token is a 401 (documented).
EARLY_SECONDS = 5.0


class Unauthorized(Exception):
    """The token is not valid. Why is nobody's business."""


class Session(NamedTuple):
    """Whose session it is, and the one organisation it is narrowed to, if it is."""

    user: str
    organisation: str | None


class TokenVerifier:
    """Checks signature, `exp`, `nbf`, `iss`, `aud`, `role`, `sub`. `user_metadata` is the user's own and never read."""

    def __init__(self, algorithm: str, keys: Keys, issuer: str | None) -> None:
        self._algorithm = algorithm
        self._keys = keys
        self._issuer = issuer

    async def verify(self, token: str) -> Session:
        """May wait for a fetch of keys. Raises Unauthorized, KeysAway."""
        try:
            session = await self._verify(token)
        except (jwt.PyJWTError, UnknownKey, Unauthorized, ValueError, TypeError, RecursionError) as error:
            metrics.token_checks.labels("refused").inc()
            raise Unauthorized(type(error).__name__) from None
        metrics.token_checks.labels("valid").inc()
        return session

    async def _verify(self, token: str) -> Session:
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthorized("size")
        header = jwt.get_unverified_header(token)
        if header.get("alg") != self._algorithm:
            raise Unauthorized("alg")
        claims: Mapping[str, Any] = jwt.decode(
            token,
            await self._keys(header.get("kid")),
            algorithms=[self._algorithm],
            audience=AUDIENCE,
            issuer=self._issuer,
            leeway=EARLY_SECONDS,
            options={"require": ["exp", "sub", "aud"] + (["iss"] if self._issuer else [])},
        )
        if int(claims["exp"]) <= time.time():
            raise Unauthorized("exp")
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
        keys = _Secret(settings.require("jwt_secret"))
    else:
        from readers.jwks import JwksKeys  # an HTTP client is a tenth of a second, and 15 MiB

        keys = JwksKeys(settings.require("jwks_url"), settings.jwt_algorithm)
    return TokenVerifier(settings.jwt_algorithm, keys, settings.jwt_issuer)


class _Secret:
    """The one key of HS256, whatever the `kid`."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def __call__(self, kid: str | None) -> str:
        return self._secret
