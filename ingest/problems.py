"""Why a body is refused: every bad field with its path. Slower than taking a good body, and only asked about a bad one.

Each field is held to the type that schemas/events.py gives it, from its own bytes, so that the two cannot disagree.
"""

import re
from typing import Any, NamedTuple

import msgspec

from schemas.events import MAX_DATA_DEPTH, MAX_EVENT_BYTES, MAX_EVENTS, Event, EventsRequest

MAX_PROBLEMS = 20


class Problem(NamedTuple):
    """One bad field: its path, such as `events[0].eventType`, and what is wrong, never its value."""

    path: str
    message: str


MALFORMED = Problem("", "Malformed JSON")
_UUID = "Expected a UUID"
_TIME = "Expected an ISO 8601 time with offset or epoch milliseconds"
MESSAGES = {
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


def types_of(struct: type[msgspec.Struct]) -> dict[str, msgspec.json.Decoder[Any]]:
    return {field.encode_name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(struct)}


_FIELDS = types_of(Event)
_SENT_AT = types_of(EventsRequest)["sentAt"]
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def problems(body: bytes) -> list[Problem]:
    """At most 20. Empty where nothing is wrong, or only a field that is there twice."""
    try:
        body.decode()
        sent_at, events = _parts(body)
        found = [] if fits(sent_at, _SENT_AT) else [Problem("sentAt", _TIME)]
        found += _of_events(events)
    except msgspec.ValidationError:
        return [Problem("", "Expected an object")]
    except RecursionError:
        return [Problem("", "Nested too deep")]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return [MALFORMED]
    return found[:MAX_PROBLEMS]


def raw_events(body: bytes) -> list[msgspec.Raw]:
    """Of a good body in any of its shapes."""
    events = _parts(body)[1]
    return _array.decode(events) if events is not None else []


def missing(path: str, kind: str, *, flow: bool, step: bool, name: bool) -> list[Problem]:
    """The rules that span fields: every type but custom needs a flow, custom needs a name, a step needs its flow."""
    found = []
    if not flow and (step or kind != "custom"):
        found.append(Problem(f"{path}.flowId", "Required"))
    if not name and kind == "custom":
        found.append(Problem(f"{path}.name", "Required"))
    return found


def too_deep(data: bytes) -> bool:
    """Whether a JSON value is nested deeper than MAX_DATA_DEPTH. Quick for all but those with many brackets."""
    if data.count(b"[") + data.count(b"{") <= MAX_DATA_DEPTH:
        return False
    brackets = _STRINGS.sub(b"", data).translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(MAX_DATA_DEPTH):
        brackets = brackets.replace(b"[]", b"")  # the innermost level
    return brackets != b""


def _parts(body: bytes) -> tuple[msgspec.Raw | None, msgspec.Raw | None]:
    """`sentAt` and `events` of a body in any shape: an object with both, an array of events, or one event alone."""
    if body.lstrip()[:1] == b"[":
        return None, msgspec.Raw(body)
    request = _object.decode(body)
    if "events" not in request and "eventType" in request:
        return request.get("sentAt"), msgspec.Raw(b"[" + body + b"]")
    return request.get("sentAt"), request.get("events")


def _of_events(raw: msgspec.Raw | None) -> list[Problem]:
    if raw is None:
        return [Problem("events", "Required")]
    try:
        events = _array.decode(raw)
    except msgspec.ValidationError:
        return [Problem("events", "Expected an array")]
    if not 1 <= len(events) <= MAX_EVENTS:
        return [Problem("events", f"Expected 1 to {MAX_EVENTS} events")]
    return [problem for index, event in enumerate(events) for problem in _of_event(event, f"events[{index}]")]


def _of_event(raw: msgspec.Raw, path: str) -> list[Problem]:
    try:
        event = _object.decode(raw)
    except msgspec.ValidationError:
        return [Problem(path, "Expected an object")]
    found = [Problem(path, f"Larger than {MAX_EVENT_BYTES} bytes")] if len(bytes(raw)) > MAX_EVENT_BYTES else []
    if "data" in event and too_deep(bytes(event["data"])):
        found.append(Problem(f"{path}.data", f"Nested deeper than {MAX_DATA_DEPTH} levels"))
    for name, message in MESSAGES.items():
        if name in event and not fits(event[name], _FIELDS[name]):
            found.append(Problem(f"{path}.{name}", message))
    if "eventType" not in event:
        found.append(Problem(f"{path}.eventType", "Required"))
    elif fits(event["eventType"], _FIELDS["eventType"]):
        kind = _FIELDS["eventType"].decode(event["eventType"])
        given = {name: bytes(event.get(name, b"null")) != b"null" for name in ("flowId", "stepId", "name")}
        found += missing(path, kind, flow=given["flowId"], step=given["stepId"], name=given["name"])
    return found


def fits(raw: msgspec.Raw | None, decoder: msgspec.json.Decoder[Any]) -> bool:
    """Whether the type takes these bytes. They are JSON, so a number beyond the range of floats is a bad value too."""
    try:
        if raw is not None:
            decoder.decode(raw)
    except msgspec.DecodeError:
        return False
    return True
