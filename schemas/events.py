"""What a client may send to POST /api/v1/events, as types that take a good body; ingest/problems.py explains a bad one.

All but `eventType` and the bound of 50 is our decision; see the contract in docs/. Unknown fields are ignored.
"""

from datetime import datetime
from typing import Annotated

import msgspec

from schemas.records import MAX_CLIENT_MS, ClientMs, EventType, Uuid

MAX_EVENTS = 50  # documented
MAX_EVENT_BYTES = 32 * 1024
# A worker reads `data` with the recursion limit of its own stack: what it could not read must not be taken.
MAX_DATA_DEPTH = 64

_NO_NUL = r"\A[^\x00]*\Z"
Text128 = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=_NO_NUL)]
Text255 = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=_NO_NUL)]
EpochMsFloat = Annotated[float, msgspec.Meta(ge=0, le=MAX_CLIENT_MS)]
Link = Annotated[str, msgspec.Meta(max_length=2048, pattern=_NO_NUL)]
Time = Annotated[datetime, msgspec.Meta(tz=True)] | ClientMs | EpochMsFloat


class Event(msgspec.Struct, rename="camel", kw_only=True):
    """One event as a client sends it."""

    event_type: EventType
    id: Uuid | None = None
    flow_id: Uuid | None = None
    step_id: Uuid | None = None
    session_id: Text128 | None = None
    user_id: Text255 | None = None
    anonymous_id: Text128 | None = None
    name: Text255 | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    timestamp: Time | None = None
    url: Link | None = None


class EventsRequest(msgspec.Struct, rename="camel", kw_only=True):
    """The body: 1 to 50 events, and the client's clock when it sent them."""

    events: Annotated[list[Event], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)]
    sent_at: Time | None = None
