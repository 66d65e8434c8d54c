"""Frames in bytes that anything may have happened to: never a trace, never an entry that was not written."""

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.spool.frames import HEAD_BYTES, MAGIC, MAX_PAYLOAD, Entry, encode, scan, spooled_at

names = st.text(max_size=20)
lines = st.one_of(
    st.text(max_size=60).map(str.encode),
    st.sampled_from([b"", b'{"events":[]}', b"ZS\x01", b"\n\n", "õZS\x01".encode(), bytes(200), b"x" * 3000]),
)
entries = st.builds(
    Entry,
    topic=names,
    organisation=names,
    at=st.integers(0, 2**64 - 1),
    events=st.integers(0, 2**32 - 1),
    line=lines,
)
files = st.lists(entries, min_size=1, max_size=6)


def _read(content: bytes) -> list[Entry]:
    return [found.entry for found in scan(content) if found.entry is not None]


def _bounds(written: Sequence[Entry]) -> list[tuple[int, int]]:
    """Where each frame begins and ends in the file of them."""
    ends = [0]
    for entry in written:
        ends.append(ends[-1] + len(encode(entry)))
    return list(pairwise(ends))


def _is_part_of(some: Sequence[Entry], whole: Sequence[Entry]) -> bool:
    """In the same order, with gaps."""
    rest = iter(whole)
    return all(entry in rest for entry in some)


@given(files)
def test_what_was_written_is_read(written: list[Entry]) -> None:
    content = b"".join(map(encode, written))
    found = list(scan(content))
    assert [one.entry for one in found] == written
    assert [(one.start, one.end) for one in found] == _bounds(written)
    assert [spooled_at(content[start : start + HEAD_BYTES]) for start, _ in _bounds(written)] == [
        entry.at for entry in written
    ]


@given(files, st.data())
def test_a_file_cut_anywhere_gives_the_frames_that_are_whole_and_calls_nothing_damage(
    written: list[Entry], data: st.DataObject
) -> None:
    content = b"".join(map(encode, written))
    cut = data.draw(st.integers(0, len(content)))
    whole = [entry for entry, (_, end) in zip(written, _bounds(written), strict=True) if end <= cut]
    assert [one.entry for one in scan(content[:cut])] == whole


def test_a_frame_cut_at_every_byte_is_a_torn_tail() -> None:
    first, last = Entry("t", "o", 1, 1, b"first"), Entry("topic", "organisation", 2, 2, b"last" * 20)
    content = encode(first) + encode(last)
    for cut in range(len(encode(first)), len(content)):
        assert [one.entry for one in scan(content[:cut])] == [first], cut


@given(files, st.data())
def test_bytes_overwritten_anywhere_take_only_the_frames_they_are_in(written: list[Entry], data: st.DataObject) -> None:
    content = b"".join(map(encode, written))
    start = data.draw(st.integers(0, len(content) - 1))
    fresh = data.draw(st.binary(min_size=1, max_size=len(content) - start).filter(lambda fresh: fresh not in content))
    damaged = content[:start] + fresh + content[start + len(fresh) :]
    untouched = [
        entry
        for entry, (begin, end) in zip(written, _bounds(written), strict=True)
        if end <= start or begin >= start + len(fresh)
    ]
    read = _read(damaged)
    assert _is_part_of(untouched, read)
    assert _is_part_of(read, written)


@given(files, st.data())
def test_every_flipped_bit_is_noticed(written: list[Entry], data: st.DataObject) -> None:
    content = bytearray(b"".join(map(encode, written)))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    begin = next(start for start, end in _bounds(written) if start <= at < end)
    assert _read(bytes(content)) == [
        entry for entry, (start, _) in zip(written, _bounds(written), strict=True) if start != begin
    ]


@given(files, st.data())
def test_bytes_put_in_or_taken_out_anywhere_take_only_the_frame_they_are_in(
    written: list[Entry], data: st.DataObject
) -> None:
    content = b"".join(map(encode, written))
    start = data.draw(st.integers(0, len(content)))
    gone = data.draw(st.integers(0, len(content) - start))
    put_in = data.draw(st.binary(max_size=80))
    damaged = content[:start] + put_in + content[start + gone :]
    untouched = [
        entry
        for entry, (begin, end) in zip(written, _bounds(written), strict=True)
        if end <= start or begin >= start + gone
    ]
    read = _read(damaged)
    assert _is_part_of(untouched, read)
    assert _is_part_of(read, written)


@given(st.lists(st.one_of(entries.map(encode), st.binary(max_size=40), st.just(MAGIC)), max_size=8))
@example([MAGIC + b"\0\0\0\x10" + bytes(20)])
def test_what_is_found_lies_side_by_side_whatever_the_bytes(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    at = 0
    for one in scan(content):
        assert one.start == at < one.end
        if one.entry is not None:
            assert content[one.start : one.end] == encode(one.entry)
        at = one.end
    assert content[at:] == b"" or MAGIC.startswith(content[at : at + len(MAGIC)])


def test_the_damage_between_two_frames_is_told() -> None:
    first, last = Entry("t", "o", 1, 1, b"first"), Entry("t", "o", 2, 1, b"last")
    content = encode(first) + b"damage" + encode(last)
    between = len(encode(first))
    assert [one.entry for one in scan(content)] == [first, None, last]
    assert list(scan(content))[1] == (between, between + 6, None)


def test_a_last_frame_that_is_damaged_is_no_torn_tail() -> None:
    """What nobody was promised ends early; this was whole once."""
    content = bytearray(encode(Entry("t", "o", 1, 1, b"line")))
    content[-1] ^= 1
    assert list(scan(bytes(content))) == [(0, len(content), None)]


def test_no_json_line_can_pass_for_a_frame() -> None:
    """So that damage in a frame's head never has its line read as an entry."""
    with pytest.raises(UnicodeDecodeError):
        MAGIC.decode()


@pytest.mark.parametrize("names", [b"\xff\xff", b""])
def test_a_checksum_that_fits_does_not_make_names_of_what_is_no_text(names: bytes) -> None:
    payload = struct.pack(">QIHH", 1, 1, len(names), 0) + names
    checksum = zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "big")))
    content = MAGIC + struct.pack(">II", len(payload), checksum) + payload
    assert _read(content) == ([] if names else [Entry("", "", 1, 1, b"")])


def test_a_line_that_could_not_be_read_again_is_not_written() -> None:
    """Its length would be taken for damage."""
    largest = MAX_PAYLOAD - (HEAD_BYTES - len(MAGIC) - 8) - len("to")
    assert _read(encode(Entry("t", "o", 1, 1, bytes(largest)))) == [Entry("t", "o", 1, 1, bytes(largest))]
    with pytest.raises(ValueError, match="too large for the spool"):
        encode(Entry("t", "o", 1, 1, bytes(largest + 1)))
