"""Cross-origin access: a page of any origin may call the edge. The key is public by design, and no cookie is read.

So the origin is echoed, `null` (a sandboxed frame, a file) like any other. A preflight is answered from constants: it
carries no credential, and no store, log or limit is asked about it.
"""

import re
from collections.abc import Iterable

from ingest.answers import Headers
from service.fields import values

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
    origins = values(request, b"origin")
    if len(origins) != 1 or not _ORIGIN.fullmatch(origins[0]):
        return [_VARY]
    return [(b"access-control-allow-origin", origins[0]), _VARY, *_SHARED]


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
