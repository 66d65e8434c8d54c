"""What stands in the log: a record is NDJSON, one line an envelope, one envelope an accepted request.

Workers and replays read records of every release, so a field is only ever added, with a default.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from schemas.ids import UUID_PATTERN

EVENTS = "events"
HEARTBEATS = "heartbeats"
VERSION = 1

Uuid = Annotated[str, msgspec.Meta(pattern=UUID_PATTERN)]
EventType = Literal["view", "complete", "dismiss", "skip", "custom"]
# 2020-01-01 to 2100-01-01: outside of it no edge of ours was running.
EpochMs = Annotated[int, msgspec.Meta(ge=1_577_836_800_000, lt=4_102_444_800_000)]
MAX_CLIENT_MS = 253_402_300_799_999  # the end of the year 9999
ClientMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_CLIENT_MS)]


class RecordEvent(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One event as it travels: ids lower-case, the user already a hash, the URL without query and fragment."""

    id: Uuid
    type: EventType
    flow: Uuid | None = None
    step: Uuid | None = None
    session: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    user: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    anon: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    name: Annotated[str, msgspec.Meta(max_length=255)] | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    time: ClientMs | None = None  # epoch ms of the client's clock, uncorrected
    url: Annotated[str, msgspec.Meta(max_length=2048)] | None = None


class Envelope(msgspec.Struct, omit_defaults=True, kw_only=True, tag_field="kind", tag="events"):
    """An accepted POST /events: whose it is, when it was received, and its events."""

    v: int
    org: Uuid
    received: EpochMs
    env: str | None = None
    sent: ClientMs | None = None  # the client's clock when it sent, to correct `time` by
    events: list[RecordEvent]


class Heartbeat(msgspec.Struct, omit_defaults=True, kw_only=True, tag_field="kind", tag="heartbeat"):
    """A snippet saying that it is installed, with the host of the page it runs on where the browser told it."""

    v: int
    org: Uuid
    received: EpochMs
    env: str | None = None
    id: Uuid
    host: Annotated[str, msgspec.Meta(max_length=255)] | None = None


Line = Envelope | Heartbeat

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """One line of a record, without its newline."""
    encoded = _encoder.encode(line)
    if b"\n" in encoded or b"\r" in encoded:
        # A client's pretty-printed `data` travels verbatim; a raw line break in JSON is always white space.
        encoded = encoded.replace(b"\n", b" ").replace(b"\r", b" ")
    return encoded


def decode(line: bytes) -> Line:
    """Raises msgspec.DecodeError (with its ValidationError), UnicodeDecodeError or RecursionError on a poison line."""
    return _decoder.decode(line)


def lines(value: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines of a record with their numbers, blank ones left out."""
    for number, line in enumerate(value.split(b"\n")):
        if line.strip():
            yield number, line
