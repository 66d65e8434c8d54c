"""Cross-origin access: a page of any origin may call the edge. The key is public by design, and no cookie is read."""

from collections.abc import Iterable

from ingest.answers import Headers

_SHARED = [
    (b"access-control-allow-credentials", b"true"),  # sendBeacon always sends with credentials
    (b"access-control-expose-headers", b"Retry-After"),
]
_PREFLIGHT = [
    (b"access-control-allow-headers", b"Authorization, Content-Type"),
    (b"access-control-max-age", b"86400"),
]


def answer_headers(request: Headers) -> Headers:
    """For every answer, so that a page can read an error too."""
    for name, value in request:
        if name == b"origin":
            return [(b"access-control-allow-origin", value), (b"vary", b"Origin"), *_SHARED]
    return [(b"vary", b"Origin")]


def preflight_headers(methods: Iterable[str]) -> Headers:
    """What the answer to OPTIONS says besides."""
    listed = ", ".join(sorted(methods)).encode()
    return [(b"allow", listed), (b"access-control-allow-methods", listed), *_PREFLIGHT]
