"""What a client may send to POST /api/v1/events. Types decode well-formed bodies; `problems` lists every bad field.

All but `eventType` and the bound of 50 is our decision; see the contract in docs/. Unknown fields are ignored.
"""

from datetime import datetime
from typing import Annotated, Any, NamedTuple

import msgspec

from schemas.records import MAX_CLIENT_MS, ClientMs, EventType, Uuid

MAX_EVENTS = 50  # documented
MAX_EVENT_BYTES = 32 * 1024
MAX_PROBLEMS = 20

_NO_NUL = r"\A[^\x00]*\Z"
Text128 = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=_NO_NUL)]
Text255 = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=_NO_NUL)]
EpochMsFloat = Annotated[float, msgspec.Meta(ge=0, le=MAX_CLIENT_MS)]
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
    url: Annotated[str, msgspec.Meta(max_length=2048, pattern=_NO_NUL)] | None = None


class EventsRequest(msgspec.Struct, rename="camel", kw_only=True):
    """The body: 1 to 50 events, and the client's clock when it sent them."""

    events: Annotated[list[Event], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)]
    sent_at: Time | None = None


class Problem(NamedTuple):
    """One bad field: its path, such as `events[0].eventType`, and what is wrong, never its value."""

    path: str
    message: str


_UUID = "Expected a UUID"
_TIME = "Expected an ISO 8601 time with offset or epoch milliseconds"
_MESSAGES = {
    "eventType": "Invalid enum value",
    "id": _UUID,
    "flowId": _UUID,
    "stepId": _UUID,
    "sessionId": "Expected a string of 1 to 128 characters",
    "userId": "Expected a string of 1 to 255 characters",
    "anonymousId": "Expected a string of 1 to 128 characters",
    "name": "Expected a string of 1 to 255 characters",
    "timestamp": _TIME,
    "url": "Expected a string of at most 2048 characters",
}
_FIELDS = {field.encode_name: field for field in msgspec.structs.fields(Event) if field.name != "data"}
_SENT_AT = next(f for f in msgspec.structs.fields(EventsRequest) if f.name == "sent_at")


def missing(event: Event, path: str) -> list[Problem]:
    """The rules that span fields: every type but custom needs a flow, custom needs a name, a step needs its flow."""
    found = []
    if event.flow_id is None and (event.event_type != "custom" or event.step_id is not None):
        found.append(Problem(f"{path}.flowId", "Required"))
    if event.event_type == "custom" and event.name is None:
        found.append(Problem(f"{path}.name", "Required"))
    return found


def problems(body: Any) -> list[Problem]:
    """Every bad field of a decoded JSON body, at most 20; empty where the types above would take it."""
    if not isinstance(body, dict):
        return [Problem("", "Expected an object")]
    found: list[Problem] = []
    if not _valid(body.get("sentAt"), _SENT_AT.type):
        found.append(Problem("sentAt", _TIME))
    events = body.get("events", msgspec.UNSET)
    if events is msgspec.UNSET:
        found.append(Problem("events", "Required"))
    elif not isinstance(events, list):
        found.append(Problem("events", "Expected an array"))
    elif not 1 <= len(events) <= MAX_EVENTS:
        found.append(Problem("events", f"Expected 1 to {MAX_EVENTS} events"))
    else:
        for index, event in enumerate(events):
            found.extend(_event_problems(event, f"events[{index}]"))
            if len(found) >= MAX_PROBLEMS:
                break
    return found[:MAX_PROBLEMS]


def _event_problems(event: Any, path: str) -> list[Problem]:
    if not isinstance(event, dict):
        return [Problem(path, "Expected an object")]
    found = []
    for name, field in _FIELDS.items():
        if name not in event and field.required:
            found.append(Problem(f"{path}.{name}", "Required"))
        elif name in event and not _valid(event[name], field.type):
            found.append(Problem(f"{path}.{name}", _MESSAGES[name]))
    bad = {problem.path.rpartition(".")[2] for problem in found}
    kind = event.get("eventType") if "eventType" not in bad else None
    if kind is not None:
        known = {name: event.get(name) for name in ("flowId", "stepId", "name")}
        probe = Event(event_type=kind, flow_id=known["flowId"], step_id=known["stepId"], name=known["name"])
        found.extend(problem for problem in missing(probe, path) if problem not in found)
    return found


def _valid(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True
