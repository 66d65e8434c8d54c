"""Undoes one Content-Encoding. The output is bounded before it is made: a bomb costs no more than a good body."""

import zlib
from collections.abc import Callable

import zstandard

from ingest.answers import Refusal, invalid, too_large
from ingest.problems import Problem

FREE_BYTES = 64 * 1024
MAX_RATIO = 200
"""Past FREE_BYTES a body may inflate to so many times its size. Events that repeat themselves stay far below it."""
MAX_MEMBERS = 16
"""Of a gzip body. Each costs a decoder, and there could be one every 20 bytes."""
MAX_WINDOW_BYTES = 8 * 1024 * 1024  # what every decoder of the coding has to take (RFC 9659)
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_PIECE, _PIECE_OUT = 64, 16 * 1024


def inflate(body: bytes, coding: str, most: int) -> bytes:
    """At most `most` bytes. `coding` is one of CODINGS.

    Raises a 413 Refusal over the bounds, and a 400 for what is not one whole stream.
    """
    return CODINGS[coding](body, min(most, max(FREE_BYTES, MAX_RATIO * len(body))))


def _gzip(body: bytes, most: int) -> bytes:
    """Several members are one body, as the format says."""
    found, rest = b"", body
    for _ in range(MAX_MEMBERS):
        member, rest = _member(rest, most - len(found), _GZIP, "gzip")
        found += member
        if not rest:
            return found
    raise _malformed("gzip")


def _deflate(body: bytes, most: int) -> bytes:
    """A zlib stream, as the standard says, or a raw one, as some send. No encoder's raw one begins as zlib's do."""
    zlib_header = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    found, rest = _member(body, most, _ZLIB if zlib_header else _RAW, "deflate")
    if rest:
        raise _malformed("deflate")
    return found


def _member(body: bytes, most: int, kind: int, coding: str) -> tuple[bytes, bytes]:
    """One stream, and the bytes behind it."""
    decoder = zlib.decompressobj(kind)
    try:
        found = decoder.decompress(body, most + 1)
    except zlib.error:
        raise _malformed(coding) from None
    if len(found) > most:
        raise too_large()
    if not decoder.eof:
        raise _malformed(coding)
    return found, decoder.unused_data


def _zstd(body: bytes, most: int) -> bytes:
    """One frame. Four bytes of it may stand for 128 KiB, and the library bounds no output, so it is fed in pieces."""
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj(write_size=_PIECE_OUT)
    found = bytearray()
    try:
        for at in range(0, len(body), _PIECE):
            found += decoder.decompress(body[at : at + _PIECE])  # raises behind the end too
            if len(found) > most:
                raise too_large()
    except zstandard.ZstdError:
        raise _malformed("zstd") from None
    if not decoder.eof or decoder.unused_data:
        raise _malformed("zstd")
    return bytes(found)


def _malformed(coding: str) -> Refusal:
    return invalid([Problem("", f"Malformed {coding}")])


CODINGS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
