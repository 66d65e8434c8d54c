"""How far the spool's entries are in the log, noted in a file beside them.

It is never synced: an older one, or none, has entries read twice, which are counted once. One that says too much would
lose what it says was read, and so it has a checksum.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

_NAME = "cursor"


class Place(NamedTuple):
    """Between two entries: a segment, and an offset in it."""

    segment: int = 0
    offset: int = 0


def load(folder: Path) -> Place:
    """What was noted; the beginning where a crash or the disk has lost or torn it."""
    try:
        noted = (folder / _NAME).read_bytes()
        segment, offset, _ = noted.split()
        place = Place(int(segment), int(offset))
    except (OSError, ValueError):
        return Place()
    return place if _content(place) == noted else Place()


def store(folder: Path, place: Place) -> None:
    """For one thread at a time. Raises OSError."""
    fresh = folder / f"{_NAME}.new"
    fresh.write_bytes(_content(place))
    fresh.replace(folder / _NAME)


def _content(place: Place) -> bytes:
    text = f"{place.segment} {place.offset}".encode()
    return text + b" %08x\n" % zlib.crc32(text)
