"""Whatever a client sends: what the edge takes a worker can read, and what it refuses it can explain."""

import json
from typing import Any

import msgspec
import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backends.log import Record
from ingest.answers import Refusal
from ingest.decode import decode
from ingest.problems import problems
from schemas import records
from tests.bodies import GOOD, REQUESTS, TIMES, damaged, raw, read, sealed
from workers import items

THOROUGH = settings(max_examples=300, deadline=None)


def readable_if_taken(content: bytes) -> None:
    """The worst fault would be a 202 for what a worker then calls poison."""
    try:
        request = decode(content)
    except Refusal as refusal:
        assert refusal.status == 400
        assert 1 <= len(orjson.loads(refusal.body)["details"]) <= 20
        return
    line = sealed(request)
    found = read(line)
    assert len(found.events) == len(request.events)
    for event in found.events:
        assert read(records.encode(found)).events
        json.loads(msgspec.json.encode(event))


@THOROUGH
@given(damaged())
@example(b'{"events":[{"eventType":"custom","name":"n","data":"\xff"}]}')
def test_whatever_is_taken_can_be_read_by_a_worker(content: bytes) -> None:
    readable_if_taken(content)


@given(st.binary(max_size=200))
def test_no_bytes_are_a_fault_of_the_edge(content: bytes) -> None:
    readable_if_taken(content)


@THOROUGH
@given(REQUESTS)
def test_a_body_is_taken_exactly_when_nothing_is_wrong_with_it(request: dict[str, Any]) -> None:
    content = json.dumps(request).encode()
    try:
        decode(content)
    except Refusal:
        assert problems(content)
    else:
        assert not problems(content)


@THOROUGH
@given(GOOD, TIMES)
def test_a_good_body_travels_whole(events: list[dict[str, Any]], sent_at: Any) -> None:
    content = orjson.dumps({"events": events, "sentAt": sent_at})
    assert problems(content) == []
    found = read(sealed(decode(content)))
    assert len(found.events) == len(events)
    for event, sent in zip(found.events, events, strict=True):
        assert event.type == sent["eventType"]
        assert event.name == sent.get("name")
        assert event.session == sent.get("sessionId")
        assert event.anon == sent.get("anonymousId")
        for name, kept in (("id", event.id), ("flowId", event.flow), ("stepId", event.step)):
            if sent.get(name) is not None:
                assert kept == sent[name].lower()
        assert (event.user is None) == (sent.get("userId") is None)
        if "data" in sent:
            assert orjson.loads(bytes(event.data)) == sent["data"]  # type: ignore[arg-type]


def test_a_line_nested_beyond_reason_that_no_edge_wrote_is_set_aside() -> None:
    """The lines beside it are read."""
    depth = 100_000
    good = sealed(decode(raw('"data":0')))
    deep = good.replace(b'"data":0', b'"data":' + b"[" * depth + b"]" * depth)
    assert deep != good
    read_items, poison = items.read([Record("t", 0, 0, 1, b"\n".join([good, deep, good]))])
    assert [item.place.line for item in read_items] == [0, 2]
    assert [(rejection.place.line, rejection.reason) for rejection in poison] == [(1, "unreadable")]


@given(st.binary(max_size=100))
def test_no_record_is_a_fault_of_the_worker(value: bytes) -> None:
    items.read([Record("t", 0, 0, 1, value)])
