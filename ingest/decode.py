"""From a body to events: parse, check every field, hash user ids. Pure but for the secret it is given."""

import hmac
from collections import OrderedDict
from datetime import UTC, datetime, timedelta

import msgspec

from ingest.answers import invalid
from ingest.problems import MALFORMED, missing, problems, too_deep
from schemas.events import MAX_EVENT_BYTES, Event, EventsRequest
from schemas.ids import uuid7
from schemas.records import MAX_CLIENT_MS, VERSION, Envelope, RecordEvent


class _Events(msgspec.Struct):
    events: list[msgspec.Raw]


_decoder = msgspec.json.Decoder(EventsRequest)
_events = msgspec.json.Decoder(_Events)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UserHasher:
    """HMAC-SHA256 of a user id under a key that is derived from the secret for each organisation.

    So the same person is another hash in another organisation, and no table of hashes made without the secret helps.
    """

    def __init__(self, secret: str, size: int = 10_000) -> None:
        self._secret = secret.encode()
        self._size = size
        self._keys: OrderedDict[str, bytes] = OrderedDict()

    def hash(self, organisation: str, user: str) -> str:
        """64 hex digits."""
        key = self._keys.get(organisation)
        if key is None:
            key = hmac.digest(self._secret, b"zenstep user id\0" + organisation.encode(), "sha256")
            self._keys[organisation] = key
            if len(self._keys) > self._size:
                self._keys.popitem(last=False)
        return hmac.digest(key, user.encode(), "sha256").hex()


def decode(body: bytes) -> EventsRequest:
    """Raises a 400 Refusal that lists every bad field."""
    try:
        if not body.isascii():
            body.decode()  # fields that no type looks into travel as they are, and a record is UTF-8
        request = _decoder.decode(body)
        large = len(body) > MAX_EVENT_BYTES and any(len(bytes(raw)) > MAX_EVENT_BYTES for raw in _raw(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid(problems(body) or [MALFORMED]) from None
    if large or not all(_whole(event) for event in request.events):
        raise invalid(problems(body))
    return request


def _raw(body: bytes) -> list[msgspec.Raw]:
    return _events.decode(body).events


def _whole(event: Event) -> bool:
    """What the types alone cannot say."""
    flow, step, name = (value is not None for value in (event.flow_id, event.step_id, event.name))
    nested = isinstance(event.data, msgspec.Raw) and too_deep(bytes(event.data))
    return not nested and not missing("", event.event_type, flow=flow, step=step, name=name)


def envelope(
    request: EventsRequest, organisation: str, environment: str | None, received: int, hasher: UserHasher
) -> Envelope:
    """What goes into the log of a valid request. `received` is epoch ms."""
    return Envelope(
        v=VERSION,
        org=organisation,
        received=received,
        env=environment,
        sent=_epoch_ms(request.sent_at),
        events=[_event(event, organisation, received, hasher) for event in request.events],
    )


def _event(event: Event, organisation: str, received: int, hasher: UserHasher) -> RecordEvent:
    return RecordEvent(
        id=event.id.lower() if event.id is not None else uuid7(received),
        type=event.event_type,
        flow=event.flow_id.lower() if event.flow_id is not None else None,
        step=event.step_id.lower() if event.step_id is not None else None,
        session=event.session_id,
        user=hasher.hash(organisation, event.user_id) if event.user_id is not None else None,
        anon=event.anonymous_id,
        name=event.name,
        data=event.data,
        time=_epoch_ms(event.timestamp),
        url=_without_query(event.url),
    )


def _epoch_ms(time: datetime | float | None) -> int | None:
    if isinstance(time, datetime):
        return min(max(0, (time - _EPOCH) // timedelta(milliseconds=1)), MAX_CLIENT_MS)
    return int(time) if time is not None else None


def _without_query(url: str | None) -> str | None:
    """Query strings and fragments carry tokens and addresses; they never leave the edge."""
    return url.partition("?")[0].partition("#")[0] if url else None
