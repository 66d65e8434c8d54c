"""What a request's head says of where the request ends, read in one way or refused.

The parser refuses most of what two readers could take in two ways: two lengths, a length and chunks, bare line feeds,
folded lines, spaces before a colon. Here is the rest.
"""

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200


class BadHead(Exception):
    """To be answered by a 400."""


class HeadTooLarge(BadHead):
    """To be answered by a 431."""


def body_length(version: str, url: bytes, headers: list[tuple[bytes, bytes]], upgrade: bool) -> float:
    """Bytes of the body that will come; infinite where it comes in chunks. Raises BadHead, HeadTooLarge."""
    length = 0.0
    size = len(url)
    hosts = 0
    chunked = False
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"content-length":
            length = float(value)
        elif name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            if chunked or value.strip().lower() != b"chunked":
                raise BadHead("transfer coding")
            chunked, length = True, float("inf")
    if size > MAX_HEAD_BYTES or len(headers) > MAX_HEADERS:
        raise HeadTooLarge
    if version == "1.1":
        if hosts != 1:
            raise BadHead("host")
    elif version != "1.0" or chunked or hosts > 1:
        raise BadHead("version")
    if upgrade and length:
        raise BadHead("upgrade")  # the parser takes the body for another protocol's
    return length
