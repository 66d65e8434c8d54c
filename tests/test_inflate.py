"""Undoing a Content-Encoding: what encoders make, what is damaged, and what would fill the memory."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.answers import Refusal
from ingest.inflate import FREE_BYTES, MAX_MEMBERS, MAX_RATIO, inflate

MOST = 512 * 1024


def raw_deflate(content: bytes, level: int = 6) -> bytes:
    encoder = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
    return encoder.compress(content) + encoder.flush()


def zstd_stream(content: bytes) -> bytes:
    """As a client sends it that does not know the size beforehand."""
    encoder = zstandard.ZstdCompressor().compressobj()
    return encoder.compress(content) + encoder.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", raw_deflate),
    "stored": ("deflate", lambda content: raw_deflate(content, 0)),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd without a size": ("zstd", zstd_stream),
}
every_encoder = pytest.mark.parametrize(("coding", "encode"), ENCODERS.values(), ids=ENCODERS)


def refused(body: bytes, coding: str, most: int = MOST) -> tuple[int, str]:
    with pytest.raises(Refusal) as refusal:
        inflate(body, coding, most)
    answer = orjson.loads(refusal.value.body)
    if refusal.value.status == 413:
        assert answer == {"error": "Payload too large"}
        return 413, ""
    assert answer["error"] == "Validation failed"
    [detail] = answer["details"]
    assert detail["path"] == ""
    return refusal.value.status, detail["message"]


def malformed(coding: str) -> tuple[int, str]:
    return 400, f"Malformed {coding.removeprefix('x-')}"


@every_encoder
@settings(deadline=None)
@given(content=st.binary(max_size=300) | st.binary(max_size=9).map(lambda part: part * 400))
def test_what_an_encoder_made_comes_back(coding: str, encode: Callable[[bytes], bytes], content: bytes) -> None:
    assert inflate(encode(content), coding, MOST) == content


@every_encoder
def test_what_is_cut_or_goes_on_is_refused(coding: str, encode: Callable[[bytes], bytes]) -> None:
    whole = encode(b'{"events":[]}' * 100)
    for end in range(len(whole)):
        assert refused(whole[:end], coding) == malformed(coding), end
    for more in (b"x", b"\0", b'{"events":[]}'):
        assert refused(whole + more, coding) == malformed(coding)


@every_encoder
@settings(deadline=None)
@given(data=st.data())
def test_what_is_damaged_is_refused_or_read_but_no_fault(
    coding: str, encode: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    whole = bytearray(encode(b'{"events":[]}' * 10))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        assert len(inflate(bytes(whole), coding, MOST)) <= MOST
    except Refusal as refusal:
        assert refusal.status in (400, 413)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@settings(deadline=None)
@given(body=st.binary(max_size=64))
def test_no_bytes_are_a_fault(coding: str, body: bytes) -> None:
    try:
        inflate(body, coding, MOST)
    except Refusal as refusal:
        assert refusal.status in (400, 413)


def test_a_wrong_checksum_is_refused() -> None:
    for encode, coding in ((gzip.compress, "gzip"), (zlib.compress, "deflate")):
        packed = bytearray(encode(b"x" * 100))
        packed[-5 if coding == "gzip" else -1] ^= 1
        assert refused(bytes(packed), coding) == malformed(coding)


@every_encoder
def test_the_greatest_output_is_taken_and_one_byte_more_is_a_413(coding: str, encode: Callable[[bytes], bytes]) -> None:
    content = bytes(range(256)) * 4
    assert inflate(encode(content), coding, 1024) == content
    assert refused(encode(content + b"x"), coding, 1024) == (413, "")


@every_encoder
def test_the_ratio_is_bounded_too(coding: str, encode: Callable[[bytes], bytes]) -> None:
    free = encode(b"a" * FREE_BYTES)
    assert len(inflate(free, coding, MOST)) == FREE_BYTES
    more = encode(b"a" * (MOST - 1000))
    if len(more) * MAX_RATIO < MOST - 1000:
        assert refused(more, coding) == (413, "")


@every_encoder
def test_a_bomb_takes_no_memory(coding: str, encode: Callable[[bytes], bytes]) -> None:
    bomb = encode(bytes(32 << 20))[:MOST]
    tracemalloc.start()
    try:
        assert refused(bomb, coding) in [(413, ""), malformed(coding)]  # what does not shrink is cut by the bound
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_several_members_of_gzip_are_one_body_within_one_bound() -> None:
    assert inflate(gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"c"), "gzip", MOST) == b"abc"
    assert len(inflate(gzip.compress(b"") * MAX_MEMBERS, "gzip", MOST)) == 0
    assert refused(gzip.compress(b"") * (MAX_MEMBERS + 1), "gzip") == malformed("gzip")
    assert refused(gzip.compress(b"a" * 600) * 2, "gzip", 1000) == (413, "")


def test_a_frame_that_lies_about_its_size_is_not_believed() -> None:
    """The library takes the memory that the header names, before it reads on."""
    honest = zstandard.ZstdCompressor().compress(b"a" * 100_000)
    field = honest.index((100_000).to_bytes(4, "little"))
    huge, small = (honest[:field] + size.to_bytes(4, "little") + honest[field + 4 :] for size in (2**32 - 1, 70_000))
    assert refused(huge, "zstd") == malformed("zstd")
    assert refused(small, "zstd") == malformed("zstd")


def test_a_frame_that_wants_a_large_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    encoder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert refused(encoder.compress(b"a") + encoder.flush(), "zstd") == malformed("zstd")
