"""Cross-origin access: a page of any origin may call the edge. The key is public by design, and no cookie is read.

So the origin is echoed, `null` (a sandboxed frame, a file) like any other. A preflight is answered from constants: it
carries no credential, and no store, log or limit is asked about it.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from service.cycle import written_out
from service.fields import Headers, values

MAX_ORIGIN = 512
"""A host name has 253 characters at most."""
_ORIGIN = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_ORIGIN)

_VARY = (b"vary", b"Origin")
_SHARED = [
    (b"access-control-allow-credentials", b"true"),  # sendBeacon always sends with credentials
    (
        b"access-control-expose-headers",
        b"X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, ETag",
    ),
]
_PREFLIGHT = [
    # Named one by one: `*` means nothing in an answer with credentials.
    (b"access-control-allow-headers", b"Authorization, Content-Type, Content-Encoding, If-None-Match, Cache-Control"),
    (b"access-control-max-age", b"86400"),
]


def answer_headers(request: Headers) -> Headers:
    """For every answer, so that a page can read an error too.

    An Origin that no browser sends (two of them, bytes beyond printable ASCII, or too many) is not echoed.
    """
    return _headers(_origin(request))


def answer_lines(request: Headers) -> bytes:
    """The same as they go out."""
    return _lines(_origin(request))


def _origin(request: Headers) -> bytes | None:
    origins = values(request, b"origin")
    return origins[0] if len(origins) == 1 and len(origins[0]) <= MAX_ORIGIN else None


def _headers(origin: bytes | None) -> Headers:
    if origin is None or not _ORIGIN.fullmatch(origin):
        return [_VARY]
    return [(b"access-control-allow-origin", origin), _VARY, *_SHARED]


@lru_cache(1024)
def _lines(origin: bytes | None) -> bytes:
    return written_out(_headers(origin))


def preflight_headers(methods: Iterable[str], request: Headers) -> Headers:
    """What the answer to OPTIONS says besides.

    A page of the public network may call an edge in a private one (a company's own, a developer's machine): the edge
    is made to be called by anybody's pages (our decision).
    """
    listed = ", ".join(sorted(methods)).encode()
    headers = [(b"allow", listed), (b"access-control-allow-methods", listed), *_PREFLIGHT]
    if (b"access-control-request-private-network", b"true") in request:
        headers.append((b"access-control-allow-private-network", b"true"))
    return headers
