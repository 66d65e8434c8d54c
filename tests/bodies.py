"""Bodies of POST /events for tests: good, odd and damaged ones, and reading what was taken as a worker does."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from hypothesis import strategies as st

from ingest.decode import UserHasher, envelope
from schemas import records
from schemas.events import Event, EventsRequest

ORGANISATION = "0b0c1c1e-3c1c-4c58-9d43-0c6f8a1f9d11"
FLOW = "7B9F1E4E-41D5-4D44-8C7A-6F6E6E1B2A33"
STEP = "9c2d6f1a-5b0e-4b57-9f59-2a7c8d3e4b44"
RECEIVED = 1_770_000_000_000
HASHER = UserHasher("a secret of the tests")


def body(*events: dict[str, Any], **fields: Any) -> bytes:
    return orjson.dumps({"events": events, **fields})


def view(**fields: Any) -> dict[str, Any]:
    return {"eventType": "view", "flowId": FLOW, **fields}


def custom(**fields: Any) -> dict[str, Any]:
    return {"eventType": "custom", "name": "bought", **fields}


def raw(field: str) -> bytes:
    """A body with one good event, and this text as one more of its fields."""
    return b'{"events":[{"eventType":"custom","name":"bought",%b}]}' % field.encode("utf-8", "surrogatepass")


def sealed(request: EventsRequest, organisation: str = ORGANISATION) -> bytes:
    return records.encode(envelope(request, organisation, "production", RECEIVED, HASHER))


def read(line: bytes) -> records.Envelope:
    """As the worker reads it."""
    line.decode()
    assert [number for number, _ in records.lines(line)] == [0], "one envelope is one line"
    found = records.decode(line)
    assert isinstance(found, records.Envelope)
    return found


IDS = st.uuids().map(str) | st.uuids().map(lambda u: str(u).upper())
CHARACTERS = st.characters(min_codepoint=1, exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS, min_size=1, max_size=255)
SHORT = TEXTS.map(lambda text: text[:128])
TIMES = (
    st.integers(0, records.MAX_CLIENT_MS)
    | st.floats(0, records.MAX_CLIENT_MS)
    | st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)).map(lambda t: t.isoformat())
    | st.none()
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OPTIONAL = {
    "id": IDS | st.none(),
    "sessionId": SHORT | st.none(),
    "userId": TEXTS | st.none(),
    "anonymousId": SHORT | st.none(),
    "data": JSON,
    "timestamp": TIMES,
    "url": st.text(CHARACTERS, max_size=2048) | st.none(),
}
FLOW_EVENTS = st.fixed_dictionaries(
    {"eventType": st.sampled_from(["view", "complete", "dismiss", "skip"]), "flowId": IDS},
    optional=OPTIONAL | {"stepId": IDS | st.none(), "name": TEXTS | st.none()},
)
CUSTOM_EVENTS = st.fixed_dictionaries(
    {"eventType": st.just("custom"), "name": TEXTS}, optional=OPTIONAL | {"flowId": IDS | st.none()}
)
GOOD = st.lists(FLOW_EVENTS | CUSTOM_EVENTS, min_size=1, max_size=4)
# Anything at all under the names that mean something, so that each check meets what it was not made for.
NAMES = [field.encode_name for field in msgspec.structs.fields(Event)]
VALUES = JSON | IDS | TIMES | st.sampled_from(["view", "custom", ""]) | st.text('\0"\\ -a7é😀', max_size=3)
ODD = st.fixed_dictionaries({}, optional={name: VALUES for name in NAMES}) | JSON
EVENTS = st.lists(FLOW_EVENTS | CUSTOM_EVENTS | ODD, max_size=3) | JSON
REQUESTS = st.fixed_dictionaries({}, optional={"events": EVENTS, "sentAt": VALUES})
PIECES = [b"", b'"', b"\\", b"\\ud800", b"\xff", b"\xc2", b"\n", b"{", b"]", b",", b"1e999", b"null", b"\0"]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A body with a few bytes changed, left out, put in or doubled, as bytes or as escapes."""
    request = draw(GOOD.map(lambda events: {"events": events}) | REQUESTS)
    content = bytearray(json.dumps(request, ensure_ascii=draw(st.booleans())).encode())
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        until = draw(st.integers(at, min(len(content), at + 8)))
        doubled = st.just(bytes(content[at:until]) * 2)
        content[at:until] = draw(st.sampled_from(PIECES) | doubled | st.binary(max_size=3))
    return bytes(content)
