"""Identifiers: UUIDs as canonical lower-case strings, snippet keys, and the partition of an organisation."""

import hashlib
import os
import re
import zlib
from collections.abc import Collection, Sequence

UUID_PATTERN = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z"
NIL = "00000000-0000-0000-0000-000000000000"
KEY_LENGTH = 32

_uuid = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LOWER_DIGITS = b"0123456789abcdef"
_DIGITS = _LOWER_DIGITS + b"ABCDEF"
_key = re.compile(r"[A-Za-z0-9]{32}")


def is_uuid(text: str) -> bool:
    """True for the hyphenated form of a UUID, in either case (documented: any other form is a 400)."""
    return _uuid.fullmatch(text) is not None


def are_uuids(texts: Collection[str]) -> bool:
    """As `is_uuid` of each, with one look at all. Each has to have 36 characters."""
    return _are_of("".join(texts), len(texts), _DIGITS)


def are_lower_uuids(texts: Sequence[str]) -> bool:
    """Whether they are as they travel. Each has to have 36 characters."""
    return _are_of("".join(texts), len(texts), _LOWER_DIGITS)


def _are_of(joined: str, number: int, digits: bytes) -> bool:
    """Hyphens where they belong and nothing but digits elsewhere, at a third of what a pattern takes for it."""
    hyphens = "-" * number
    if not (joined[8::36] == joined[13::36] == joined[18::36] == joined[23::36] == hyphens and joined.isascii()):
        return False
    return len(joined.encode().translate(None, digits)) == 4 * number


def is_snippet_key(text: str) -> bool:
    """True for 32 ASCII letters and digits (documented)."""
    return _key.fullmatch(text) is not None


def key_digest(key: str) -> str:
    """What the store keeps of a snippet key: its SHA-256 in hex, so that no table holds a credential."""
    return hashlib.sha256(key.encode()).hexdigest()


def uuid7(now_ms: int) -> str:
    """A version 7 UUID of this instant: sortable, and its day can be read back by `uuid7_ms`."""
    value = (now_ms & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def uuid7_ms(identifier: str) -> int | None:
    """The epoch milliseconds inside a version 7 UUID, None for any other version."""
    if identifier[14] != "7":
        return None
    return int(identifier[:8] + identifier[9:13], 16)


def partition_of(organisation: str, partitions: int) -> int:
    """The partition that an organisation's records go to, the same in every edge and reader.

    One organisation has one partition and so normally one worker at a time: its events stay in order and its
    rows are contended by nobody (our decision; correctness does not rest on it).
    """
    return zlib.crc32(organisation.encode()) % partitions
