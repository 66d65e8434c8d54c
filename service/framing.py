"""What a request's head says of where the request ends, read in one way or refused.

The parser refuses most of what two readers could take in two ways: two lengths, a length and chunks, bare line feeds,
folded lines, spaces before a colon. Here is the rest.
"""

from math import inf

from service.fields import Fields, values

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
_UNUSUAL = {b"transfer-encoding", b"expect"}


class BadHead(Exception):
    """To be answered by a 400."""


class HeadTooLarge(BadHead):
    """To be answered by a 431."""


def body_length(version: str, url: bytes, headers: Fields, upgrade: bool, short: bool) -> tuple[float, bool]:
    """Bytes of the body, infinite where it comes in chunks, and whether the client waits to be told to go on.

    `short` says that the head's size is known to be within its bound. Raises BadHead, HeadTooLarge.
    """
    if len(headers) > MAX_HEADERS or not (short or _size(url, headers) <= MAX_HEAD_BYTES):
        raise HeadTooLarge
    once = headers.by_name
    if once is not None and b"host" in once and version == "1.1" and not upgrade and once.keys().isdisjoint(_UNUSUAL):
        return float(once.get(b"content-length", 0)), False  # what all that follows comes to for nearly every head
    lengths, codings = values(headers, b"content-length"), values(headers, b"transfer-encoding")
    hosts = values(headers, b"host")
    length = float(lengths[0]) if lengths else 0.0
    if codings:
        if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
            raise BadHead("transfer coding")
        length = inf
    if version == "1.1":
        if len(hosts) != 1:
            raise BadHead("host")
    elif version != "1.0" or codings or len(hosts) > 1:
        raise BadHead("version")
    if upgrade and length:
        raise BadHead("upgrade")  # the parser takes the body for another protocol's
    expected = values(headers, b"expect")
    return length, bool(expected) and b"100-continue" in map(bytes.lower, expected)


def _size(url: bytes, headers: Fields) -> int:
    return len(url) + sum(len(name) + len(value) for name, value in headers)
