"""A spooled line as bytes on a disk, with a checksum, and what can be read out of bytes that may be damaged. Pure.

A frame is MAGIC, the length of what follows, the CRC-32 of that length and of what follows: time, events, topic,
organisation, line. Integers are big-endian.
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
    """The frame of an entry."""
    topic, organisation = entry.topic.encode(), entry.organisation.encode()
    fields = _FIELDS.pack(entry.at, entry.events, len(topic), len(organisation))
    payload = b"".join((fields, topic, organisation, entry.line))
    return _HEAD.pack(MAGIC, len(payload), _checksum(payload)) + payload


def spooled_at(head: bytes) -> int | None:
    """The time in a frame's first HEAD_BYTES; None where no frame begins there."""
    if len(head) < HEAD_BYTES or not head.startswith(MAGIC):
        return None
    at: int = _FIELDS.unpack_from(head, _HEAD.size)[0]
    return at


def scan(content: bytes | memoryview, start: int = 0) -> Iterator[Found]:
    """What can be read, in order. Bytes between two whole frames are damage; bytes after the last are left out.

    Those are a torn tail: a write that the process or the machine did not live to finish, and nobody was promised.
    """
    view = memoryview(content)
    at = start
    while at < len(view):
        found = _frame(view, at)
        if found is None:
            following = _next_frame(view, at + 1)
            if following is None:
                return
            yield Found(at, following.start, None)
            found = following
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
    names = payload[_FIELDS.size :]
    line = names[topic + organisation :]
    entry = Entry(names[:topic].decode(), names[topic : topic + organisation].decode(), at, events, line)
    return Found(start, begin + length, entry)


def _checksum(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "big")))
