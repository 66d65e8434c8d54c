"""The quick look at a body: what it takes, the whole check takes too and with the same values; else it says nothing."""

import json
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.problems import problems
from ingest.quick import quick
from schemas.events import MAX_DATA_DEPTH, EventsRequest
from tests.bodies import FLOW, GOOD, STEP, body, custom, damaged, view

THOROUGH = settings(max_examples=200, deadline=None)
WHOLE = msgspec.json.Decoder(EventsRequest)
BAD_ID = FLOW[:-1] + "g"


def agrees(content: bytes) -> bool:
    """Whether it is taken; then it is what the types say, ids in lower case, and nothing is wrong with it."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    found = quick(content)
    if found is None:
        return False
    assert problems(content) == []
    expected = WHOLE.decode(content)
    for event in expected.events:
        event.id, event.flow_id, event.step_id = (
            value.lower() if value is not None else None for value in (event.id, event.flow_id, event.step_id)
        )
    assert msgspec.json.encode(found) == msgspec.json.encode(expected)
    return True


@THOROUGH
@given(damaged())
def test_it_takes_nothing_that_the_types_do_not(content: bytes) -> None:
    agrees(content)


@THOROUGH
@given(GOOD)
def test_it_reads_good_bodies_as_the_types_do(events: list[dict[str, Any]]) -> None:
    agrees(json.dumps({"events": events}, ensure_ascii=False, separators=(",", ":")).encode())


def test_the_common_shape_is_taken() -> None:
    """What a browser's JSON.stringify makes of a batch, capitals and other alphabets and all."""
    events = [view(id=STEP, stepId=STEP, sessionId="s", userId="é😀", data={"n": n}, url="/a?b") for n in range(49)]
    assert agrees(body(*events, custom(), sentAt=1_770_000_000_000))


@pytest.mark.parametrize("name", ["id", "flowId", "stepId"])
@pytest.mark.parametrize("bad", [BAD_ID, FLOW.replace("-", "0", 1), "é" + FLOW[1:], FLOW[1:] + "-", "-" * 36])
def test_a_bad_id_is_never_taken(name: str, bad: str) -> None:
    assert not agrees(body(view() | {name: bad}))


@pytest.mark.parametrize("name", ["id", "flowId", "stepId"])
def test_a_bad_id_is_not_hidden_behind_a_second_one_of_the_same_name(name: str) -> None:
    good = body(view(id=STEP, stepId=STEP))
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    for hidden in (name, escaped):
        assert not agrees(good.replace(b'{"eventType"', f'{{"{hidden}":"{BAD_ID}","eventType"'.encode(), 1))


def test_a_nul_is_never_taken() -> None:
    assert not agrees(body(view(userId="a\0b")))
    assert not agrees(body(view(userId="a@b")).replace(b"@", b"\0"))


@pytest.mark.parametrize("fields", [{"flowId": None}, {"eventType": "custom", "name": None}])
def test_what_lacks_a_field_is_not_taken(fields: dict[str, None]) -> None:
    assert not agrees(body(view(**fields)))


@given(st.integers(1, 50), st.integers(MAX_DATA_DEPTH - 1, MAX_DATA_DEPTH + 2))
def test_data_that_is_nested_too_deep_is_not_taken_in_any_company(company: int, depth: int) -> None:
    data = orjson.Fragment("[" * depth + "]" * depth)
    taken = agrees(orjson.dumps({"events": [*[view()] * (company - 1), view(data=data)]}))
    assert taken == (depth <= MAX_DATA_DEPTH)
