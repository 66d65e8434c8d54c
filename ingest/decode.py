"""From a body to events: parse, check every field, hash user ids. Pure but for the secret it is given."""

import hashlib
import hmac
from codecs import BOM_UTF8
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated

import msgspec

from ingest.answers import invalid
from ingest.problems import MALFORMED, problems, raw_events
from ingest.quick import lower, quick, too_deep, whole
from schemas.events import MAX_EVENT_BYTES, MAX_EVENTS, Event, EventsRequest, Time
from schemas.ids import uuid7
from schemas.records import MAX_CLIENT_MS, VERSION, Envelope, RecordEvent


class _Alone(Event, rename="camel", kw_only=True):
    """One event as a body of its own."""

    sent_at: Time | None = None
    events: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(EventsRequest)
_list = msgspec.json.Decoder(Annotated[list[Event], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)])
_alone = msgspec.json.Decoder(_Alone)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KNOWN_PAGES = 1_024
_MILLISECOND = timedelta(milliseconds=1)
_Key = tuple["hashlib._Hash", "hashlib._Hash"]


class UserHasher:
    """HMAC-SHA256 of a user id under a key that is derived from the secret for each organisation.

    So the same person is another hash in another organisation, and no table of hashes made without the secret helps.

    No hash is remembered: under load the users that could be are those of a second, and to ask whether one is costs as
    much as half a hash. What is kept of an organisation is its key as HMAC begins and ends with it (RFC 2104), which
    makes a hash of a few words cost half.
    """

    def __init__(self, secret: str, size: int = 10_000) -> None:
        self._secret = secret.encode()
        self._size = size
        self._keys: OrderedDict[str, _Key] = OrderedDict()

    def hash(self, organisation: str, user: str) -> str:
        """64 hex digits of an organisation's user id."""
        key = self._keys.get(organisation)
        if key is None:
            key = self._keys[organisation] = _key(
                hmac.digest(self._secret, b"zenstep user id\0" + organisation.encode(), "sha256")
            )
            if len(self._keys) > self._size:
                self._keys.popitem(last=False)
        inner, outer = key[0].copy(), key[1].copy()
        inner.update(user.encode())
        outer.update(inner.digest())
        return outer.hexdigest()


def _key(key: bytes) -> _Key:
    """The two beginnings of HMAC-SHA256. Of a key that is no longer than a block."""
    block = key.ljust(hashlib.sha256().block_size, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in block)), hashlib.sha256(bytes(byte ^ 0x5C for byte in block))


def decode(body: bytes) -> EventsRequest:
    """Takes {"events": [...]}, an array of events or one event. Raises a 400 Refusal that lists every bad field.

    A byte order mark before the JSON is passed over, which RFC 8259 leaves open.
    """
    try:
        if not body.isascii():
            body.decode()  # fields that no type looks into travel as they are, and a record is UTF-8
            body = body.removeprefix(BOM_UTF8)
        request = quick(body)
        known = request is not None
        if request is None:
            request = _request(body)
            lower(request)
        large = len(body) > MAX_EVENT_BYTES and any(_size(raw) > MAX_EVENT_BYTES for raw in raw_events(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid(problems(body) or [MALFORMED]) from None
    if large or not (known or all(whole(event) and not too_deep(event) for event in request.events)):
        raise invalid(problems(body))
    return request


def _request(body: bytes) -> EventsRequest:
    """Raises msgspec.DecodeError. The common shape is tried first and pays nothing for the other two."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError:
        if body.lstrip()[:1] == b"[":
            return EventsRequest(events=_list.decode(body))
        event = _alone.decode(body)
        if event.events is not msgspec.UNSET:
            raise
        return EventsRequest(events=[event], sent_at=event.sent_at)


def _size(raw: msgspec.Raw) -> int:
    return memoryview(raw).nbytes


def envelope(
    request: EventsRequest, organisation: str, environment: str | None, received: int, hasher: UserHasher
) -> Envelope:
    """What goes into the log of a valid request. `received` is epoch ms."""
    users: dict[str | None, str] = {}  # nearly always one
    events: list[RecordEvent] = []
    for event in request.events:
        user, time, url = event.user_id, event.timestamp, event.url
        if user is not None and user not in users:
            users[user] = hasher.hash(organisation, user)
        events.append(
            RecordEvent(
                id=event.id or uuid7(received),
                type=event.event_type,
                flow=event.flow_id,
                step=event.step_id,
                session=event.session_id,
                user=users.get(user),
                anon=event.anonymous_id,
                name=event.name,
                data=event.data,
                time=time if time.__class__ is int else epoch_ms(time),
                url=page_address(url) if url else None,
            )
        )
    return Envelope(
        v=VERSION,
        org=organisation,
        received=received,
        env=environment,
        sent=epoch_ms(request.sent_at),
        events=events,
    )


def epoch_ms(time: datetime | float | None) -> int | None:
    if isinstance(time, datetime):
        ms = (time - _EPOCH) // _MILLISECOND
        return ms if 0 <= ms <= MAX_CLIENT_MS else min(max(0, ms), MAX_CLIENT_MS)
    return int(time) if time is not None else None


@lru_cache(KNOWN_PAGES)
def page_address(url: str | None) -> str | None:
    """Query string, fragment and user part carry tokens and names; they never leave the edge."""
    if not url:
        return None
    page = url
    if "?" in page or "#" in page:
        page = page.partition("?")[0].partition("#")[0]
    if "@" in page:
        scheme, separator, rest = page.partition("//")
        authority, slash, path = rest.partition("/")
        page = scheme + separator + authority.rpartition("@")[2] + slash + path
    return page
