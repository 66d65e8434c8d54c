"""A spooled line as bytes on a disk, with a checksum, and what can be read out of bytes that may be damaged. Pure.

A frame is MAGIC, the length of what follows, the CRC-32 of that length and of what follows: time, events, topic,
organisation, line. Integers are big-endian. MAGIC begins with a byte that is in no UTF-8 text, and so in no line.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"\xf5ZS\x01"
_HEAD = struct.Struct(">4sII")  # magic, length, checksum
_FIELDS = struct.Struct(">QIHH")  # at, events, lengths of topic and organisation
HEAD_BYTES = _HEAD.size + _FIELDS.size
MAX_PAYLOAD = 64 * 1024 * 1024


class Entry(NamedTuple):
    """A line for a topic: whose it is, when it was spooled (epoch ms), how many events it holds."""

    topic: str
    organisation: str
    at: int
    events: int
    line: bytes


class Found(NamedTuple):
    """What stands at [start, end): an entry, or bytes that are none, which is damage."""

    start: int
    end: int
    entry: Entry | None


def encode(entry: Entry) -> bytes:
    """The frame of an entry. Raises ValueError for one that could not be read again."""
    topic, organisation = entry.topic.encode(), entry.organisation.encode()
    fields = _FIELDS.pack(entry.at, entry.events, len(topic), len(organisation))
    payload = b"".join((fields, topic, organisation, entry.line))
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a line of {len(entry.line)} bytes is too large for the spool")
    return _HEAD.pack(MAGIC, len(payload), _checksum(payload)) + payload


def spooled_at(head: bytes) -> int | None:
    """The time in a frame's first HEAD_BYTES; None where no frame begins there."""
    if len(head) < HEAD_BYTES or not head.startswith(MAGIC):
        return None
    at: int = _FIELDS.unpack_from(head, _HEAD.size)[0]
    return at


def scan(content: bytes | memoryview) -> Iterator[Found]:
    """What can be read, in order, and the damage between and after it. A torn tail is left out.

    That is the beginning of a frame: a write that the process or the machine did not live to finish, and nobody was
    promised.
    """
    view = memoryview(content)
    at = 0
    while at < len(view):
        found = _frame(view, at)
        if found is None:
            found = _next_frame(view, at + 1)
            if found is not None:
                yield Found(at, found.start, None)
            elif _is_torn(view, at):
                return
            else:
                found = Found(at, len(view), None)
        yield found
        at = found.end


def _next_frame(view: memoryview, start: int) -> Found | None:
    content = bytes(view[start:])
    at = content.find(MAGIC)
    while at >= 0:
        found = _frame(view, start + at)
        if found is not None:
            return found
        at = content.find(MAGIC, at + 1)
    return None


def _frame(view: memoryview, start: int) -> Found | None:
    if len(view) - start < _HEAD.size:
        return None
    magic, length, checksum = _HEAD.unpack_from(view, start)
    begin = start + _HEAD.size
    if magic != MAGIC or not _FIELDS.size <= length <= min(MAX_PAYLOAD, len(view) - begin):
        return None
    payload = bytes(view[begin : begin + length])
    if _checksum(payload) != checksum:
        return None
    at, events, topic, organisation = _FIELDS.unpack_from(payload)
    names, line = payload[_FIELDS.size :], payload[_FIELDS.size + topic + organisation :]
    try:
        entry = Entry(names[:topic].decode(), names[topic : topic + organisation].decode(), at, events, line)
    except UnicodeDecodeError:
        return None
    return Found(start, begin + length, entry)


def _is_torn(view: memoryview, start: int) -> bool:
    """The rest is a frame's beginning, and no more of it."""
    rest = len(view) - start
    if rest < _HEAD.size:
        return MAGIC.startswith(bytes(view[start : start + len(MAGIC)]))
    magic, length, _ = _HEAD.unpack_from(view, start)
    return bool(magic == MAGIC and _FIELDS.size <= length <= MAX_PAYLOAD and length > rest - _HEAD.size)


def _checksum(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "big")))
