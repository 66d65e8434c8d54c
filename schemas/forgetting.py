"""Leaving a person out of what is kept: of a line of the log, or of what was set aside. Pure.

What stands beside a forgotten user in the same event is theirs too: the anonymous id of the same browser.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

USER_FIELDS = ("user", "userId")
ANONYMOUS_FIELDS = ("anon", "anonymousId")
NOBODY = b"0" * 64

# Overlapping, since a hash may stand in a longer row of digits.
_hash = re.compile(rb"(?=([0-9a-f]{64}))")
_anonymous = re.compile(rb'("(?:anon|anonymousId)"\s*:\s*)("(?:[^"\\]|\\.)*")')
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)


class Whom(NamedTuple):
    """Who is to be left out, by the hash of a user id and by anonymous id."""

    is_user: Callable[[str], bool]
    is_anonymous: Callable[[str], bool]


def digest(user: str | None, anonymous: str | None = None) -> str:
    """What is kept of a forgotten person: the SHA-256 of the user hash, or else of the anonymous id."""
    return hashlib.sha256((user if user is not None else f"a:{anonymous}").encode()).hexdigest()


def left_out(line: bytes, whom: Whom) -> bytes:
    """The line without them; the very same where they are not in it. What is no JSON is overwritten where they are."""
    try:
        line = _without(line, whom) or line
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        line = _anonymous.sub(lambda found: _anonymous_blank(found, whom), line)
    for found in [at for at in _hash.finditer(line) if whom.is_user(at[1].decode())]:
        line = line[: found.start()] + NOBODY + line[found.start() + len(NOBODY) :]
    return line


def digests_in(line: bytes) -> Iterator[str]:
    """Of everybody who may be in bytes that are no JSON."""
    for found in _hash.finditer(line):
        yield digest(found[1].decode())
    for found in _anonymous.finditer(line):
        text = _text_of(found[2])
        if text is not None:
            yield digest(None, text)


def _without(value: bytes, whom: Whom) -> bytes | None:
    """JSON without them, all else byte for byte; None where they are not in it."""
    start = value.lstrip()[:1]
    if start == b"{":
        fields = _fields.decode(value)
        changed = _drop(fields, whom)
        for name, inner in fields.items():
            without = _without(bytes(inner), whom)
            if without is not None:
                fields[name] = msgspec.Raw(without)
                changed = True
        return msgspec.json.encode(fields) if changed else None
    if start == b"[":
        items = _items.decode(value)
        withouts = [_without(bytes(item), whom) for item in items]
        if all(without is None for without in withouts):
            return None
        return msgspec.json.encode(
            [item if without is None else msgspec.Raw(without) for item, without in zip(items, withouts, strict=True)]
        )
    return None


def _drop(fields: dict[str, msgspec.Raw], whom: Whom) -> bool:
    theirs: set[str] = set()
    for name in USER_FIELDS:
        text = _text_of(bytes(fields.get(name, b"")))
        if text is not None and whom.is_user(text):
            theirs |= {name, *ANONYMOUS_FIELDS}
    for name in ANONYMOUS_FIELDS:
        text = _text_of(bytes(fields.get(name, b"")))
        if text is not None and whom.is_anonymous(text):
            theirs.add(name)
    theirs &= fields.keys()
    for name in theirs:
        del fields[name]
    return bool(theirs)


def _anonymous_blank(found: "re.Match[bytes]", whom: Whom) -> bytes:
    text = _text_of(found[2])
    return found[1] + b'""' if text is not None and whom.is_anonymous(text) else found[0]


def _text_of(value: bytes) -> str | None:
    if value.lstrip()[:1] != b'"':
        return None
    try:
        return _text.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
