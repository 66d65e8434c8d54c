"""What stands in the log: a record is NDJSON, one line an envelope, one envelope an accepted request.

Workers and replays read records of every release, so a field is only ever added, with a default.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, cast, get_args

import msgspec

from schemas.ids import UUID_PATTERN, are_uuids, is_uuid

EVENTS = "events"
HEARTBEATS = "heartbeats"
REFUSED = "refused"
VERSION = 1

Uuid = Annotated[str, msgspec.Meta(pattern=UUID_PATTERN)]
UserHash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
EventType = Literal["view", "complete", "dismiss", "skip", "custom"]
# 2020-01-01 to 2100-01-01: outside of it no edge of ours was running.
EARLIEST_MS, LATEST_MS = 1_577_836_800_000, 4_102_444_800_000
EpochMs = Annotated[int, msgspec.Meta(ge=EARLIEST_MS, lt=LATEST_MS)]
MAX_CLIENT_MS = 253_402_300_799_999  # the end of the year 9999
ClientMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_CLIENT_MS)]


class RecordEvent(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One event as it travels: ids lower-case, the user already a hash, the URL without query and fragment."""

    id: Uuid
    type: EventType
    flow: Uuid | None = None
    step: Uuid | None = None
    session: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    user: UserHash | None = None
    anon: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    name: Annotated[str, msgspec.Meta(max_length=255)] | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    time: ClientMs | None = None  # epoch ms of the client's clock, uncorrected
    url: Annotated[str, msgspec.Meta(max_length=2048)] | None = None


class _Header(msgspec.Struct, omit_defaults=True, kw_only=True, tag_field="kind"):
    """What every line begins with: its version, whose it is, when the edge received it, and its key's environment."""

    v: int
    org: Uuid
    received: EpochMs
    env: str | None = None


class Envelope(_Header, kw_only=True, tag="events"):
    """An accepted POST /events: whose it is, when it was received, and its events."""

    sent: ClientMs | None = None  # the client's clock when it sent, to correct `time` by
    bot: bool = False  # sent by a known bot
    events: list[RecordEvent]


class Heartbeat(_Header, kw_only=True, tag="heartbeat"):
    """A snippet saying that it is installed, with the host of the page it runs on where the browser told it."""

    id: Uuid
    host: Annotated[str, msgspec.Meta(max_length=255)] | None = None


class Progress(_Header, kw_only=True, tag="progress"):
    """A person has done a step of a checklist, or has taken that back."""

    id: Uuid
    flow: Uuid
    step: Uuid
    user: UserHash | None = None
    anon: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    completed: bool = True
    time: ClientMs | None = None


class Fingerprint(_Header, kw_only=True, tag="fingerprint"):
    """How to find the element of a step again: a JSON object that only the snippet understands."""

    id: Uuid
    flow: Uuid
    step: Uuid
    fingerprint: msgspec.Raw
    time: ClientMs | None = None
    url: Annotated[str, msgspec.Meta(max_length=2048)] | None = None


class Health(_Header, kw_only=True, tag="health"):
    """Whether the element of a step was on the page."""

    id: Uuid
    flow: Uuid
    step: Uuid
    found: bool
    time: ClientMs | None = None
    url: Annotated[str, msgspec.Meta(max_length=2048)] | None = None


OfStep = Progress | Fingerprint | Health
"""The small writes that are about a step."""


class Detail(msgspec.Struct):
    """One bad field of a refused body: where, and what is wrong, never its value."""

    path: str
    message: str


class Refused(_Header, kw_only=True, tag="refused"):
    """A request of an organisation that the edge refused, and what may be kept of its body; see ingest/refused.py."""

    route: str
    reason: Annotated[str, msgspec.Meta(pattern="^[a-z_]{1,32}$")]
    details: list[Detail] = []
    size: int | None = None  # bytes, where it is known
    sha256: str | None = None  # of the body, where it was read
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


Line = Envelope | Heartbeat | OfStep
AnyLine = Line | Refused


class Place(NamedTuple):
    """Where something stood in the log. `event` is the index in the envelope, -1 the whole line."""

    topic: str
    partition: int
    offset: int
    line: int
    event: int


_encoder = msgspec.json.Encoder()
_LINE_FEED, _RETURN = b"\n\r"
_decoder: msgspec.json.Decoder[AnyLine] = msgspec.json.Decoder(AnyLine)
_KINDS = {kind.__struct_config__.tag for kind in get_args(AnyLine)}


class _Peek(msgspec.Struct):
    """What a line of any release has; what else it says of itself is taken where it is as expected."""

    v: int
    kind: str
    org: Any = None
    received: Any = None
    events: Any = None


_peeker = msgspec.json.Decoder(_Peek)
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a poison line raises."""


class Newer(NamedTuple):
    """What can be told of a line of a newer release."""

    organisation: str | None
    received: int | None
    events: int  # as many as it seems to have, at least 1


def encode(line: AnyLine) -> bytes:
    """One line of a record, without its newline."""
    encoded = _encoder.encode(line)
    if _LINE_FEED in encoded or _RETURN in encoded:  # numbers, which are found at a tenth of what a text of one costs
        # A client's pretty-printed `data` travels verbatim; a raw line break in JSON is always white space.
        encoded = encoded.replace(b"\n", b" ").replace(b"\r", b" ")
    return encoded


def decode(line: bytes) -> AnyLine:
    """Raises one of UNREADABLE on a poison line."""
    [decoded] = decode_all([line])
    return decoded if decoded is not None else _decoder.decode(line)


def decode_all(encoded: Sequence[bytes]) -> list[AnyLine | None]:
    """As `decode` of each line, and cheaper; None for a poison line."""
    decoded: list[AnyLine | None] = []
    envelopes: list[Envelope] = []
    for line in encoded:
        try:
            envelope = _quick_decoder.decode(line)
        except UNREADABLE:
            decoded.append(_carefully(line))
        else:
            decoded.append(envelope)
            envelopes.append(envelope)
    if _well_formed(envelopes):
        return decoded
    return [_carefully(line) for line in encoded]


def _carefully(line: bytes) -> AnyLine | None:
    try:
        return _decoder.decode(line)
    except UNREADABLE:
        return None


_Id = Annotated[str, msgspec.Meta(min_length=36, max_length=36)]
_DIGITS = b"0123456789abcdef"


class _QuickEvent(RecordEvent, kw_only=True, gc=False):
    """Its patterns left out, each of which is a search of its own: they are looked for in all events together."""

    id: _Id
    flow: _Id | None = None
    step: _Id | None = None
    user: Annotated[str, msgspec.Meta(min_length=64, max_length=64)] | None = None


class _QuickEnvelope(Envelope, kw_only=True, tag="events"):
    org: _Id
    events: list[_QuickEvent]  # type: ignore[assignment]


_quick_decoder = msgspec.json.Decoder(_QuickEnvelope)


def _well_formed(envelopes: Sequence[Envelope]) -> bool:
    events = [event for envelope in envelopes for event in envelope.events]
    # Of which there are few in all that comes together.
    named: set[str | None] = {envelope.org for envelope in envelopes}
    named.update([event.flow for event in events])
    named.update([event.step for event in events])
    named.discard(None)
    users = "".join([event.user for event in events if event.user is not None])
    return (
        are_uuids([event.id for event in events])
        and are_uuids(cast("set[str]", named))
        and users.isascii()
        and not users.encode().translate(None, _DIGITS)
    )


def peek(line: bytes) -> Newer | None:
    """Of a line that this release cannot read whether a newer one can: its version is later, or its kind unknown.

    None for what is of no release.
    """
    try:
        seen = _peeker.decode(line)
    except UNREADABLE:
        return None
    if seen.v < VERSION or (seen.v == VERSION and seen.kind in _KINDS):
        return None
    known = isinstance(seen.org, str) and is_uuid(seen.org)
    timed = type(seen.received) is int and EARLIEST_MS <= seen.received < LATEST_MS
    events = len(seen.events) if isinstance(seen.events, list) else 1
    return Newer(seen.org.lower() if known else None, seen.received if timed else None, max(1, events))


def lines(value: bytes) -> list[tuple[int, bytes]]:
    """The lines of a record with their numbers, blank ones left out."""
    if _LINE_FEED not in value:
        return [(0, value)] if value.strip() else []
    return [(number, line) for number, line in enumerate(value.split(b"\n")) if line.strip()]
