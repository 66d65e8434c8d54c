"""What a request's head says of where the request ends, read in one way or refused.

The parser refuses most of what two readers could take in two ways: two lengths, a length and chunks, bare line feeds,
folded lines, spaces before a colon. Here is the rest.
"""

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
_FRAMING = {b"content-length", b"host", b"expect", b"transfer-encoding"}


class BadHead(Exception):
    """To be answered by a 400."""


class HeadTooLarge(BadHead):
    """To be answered by a 431."""


def body_length(
    version: str, url: bytes, headers: list[tuple[bytes, bytes]], upgrade: bool, short: bool
) -> tuple[float, bool]:
    """Bytes of the body, infinite where it comes in chunks, and whether the client waits to be told to go on.

    `short` says that the head's size is known to be within its bound. Raises BadHead, HeadTooLarge.
    """
    if len(headers) > MAX_HEADERS or not (short or _size(url, headers) <= MAX_HEAD_BYTES):
        raise HeadTooLarge
    length = 0.0
    hosts = 0
    chunked = waits = False
    for name, value in headers:
        if name not in _FRAMING:
            continue
        if name == b"content-length":
            length = float(value)
        elif name == b"host":
            hosts += 1
        elif name == b"expect":
            waits = waits or value.lower() == b"100-continue"
        else:
            if chunked or value.strip().lower() != b"chunked":
                raise BadHead("transfer coding")
            chunked, length = True, float("inf")
    if version == "1.1":
        if hosts != 1:
            raise BadHead("host")
    elif version != "1.0" or chunked or hosts > 1:
        raise BadHead("version")
    if upgrade and length:
        raise BadHead("upgrade")  # the parser takes the body for another protocol's
    return length, waits


def _size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) for name, value in headers)
