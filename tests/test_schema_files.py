"""The JSON Schema files are current, say what the types say, and take all that the last release's took."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from ingest.answers import Refusal
from ingest.decode import decode
from schemas import records
from schemas.files import FOLDER, schema_files
from schemas.ids import uuid7
from schemas.openapi.operations import OPERATIONS
from tests.commands import Zenstep
from tests.schema_compat import narrowed

RELEASED = sorted((FOLDER / "released").glob("*/*.json"))
NOW = 1_774_872_000_000
UUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


def load(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return schema


def valid(name: str, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(load(name)).is_valid(value))


@pytest.fixture
def zenstep(tmp_path: Path) -> Zenstep:
    return Zenstep(f"sqlite:///{tmp_path}/store.db", tmp_path)


def test_the_files_are_those_of_the_types(zenstep: Zenstep) -> None:
    assert zenstep("schemas", "--check") == f"{len(schema_files())} files are current.\n"


def test_a_file_that_is_old_missing_or_left_over_is_named_and_mended(zenstep: Zenstep, tmp_path: Path) -> None:
    folder = tmp_path / "json"
    written = zenstep("schemas", "--folder", str(folder)).split()
    assert written == sorted(schema_files())
    old, missing, left = written[0], written[1], "record.forgotten.json"
    (folder / old).write_text("{}\n")
    (folder / missing).unlink()
    (folder / left).write_text("{}\n")
    message = zenstep.refuses("schemas", "--check", "--folder", str(folder))
    assert message == f"not current, run `zenstep schemas`: {', '.join(sorted([old, missing, left]))}"
    assert zenstep("schemas", "--folder", str(folder)).split() == sorted([old, missing, left])
    assert zenstep("schemas", "--check", "--folder", str(folder)).endswith("files are current.\n")
    assert sorted(file.name for file in folder.iterdir()) == written


def test_every_file_is_a_valid_schema() -> None:
    for name in schema_files():
        jsonschema.Draft202012Validator.check_schema(load(name))


def test_every_body_that_a_client_sends_has_a_file_whose_example_is_valid() -> None:
    for op in OPERATIONS:
        if op.body is not None:
            assert valid(f"request.{op.name}.json", op.body_example), op.name


@pytest.mark.parametrize(
    ("event", "taken"),
    [
        ({"eventType": "view", "flowId": UUID}, True),
        ({"eventType": "view", "flowId": UUID, "userId": None, "more": 1}, True),
        ({"eventType": "view", "flowId": UUID, "timestamp": 1.5}, True),
        ({"eventType": "view"}, False),
        ({"eventType": "view", "flowId": None}, False),
        ({"eventType": "seen", "flowId": UUID}, False),
        ({"eventType": "view", "flowId": "7"}, False),
        ({"eventType": "view", "flowId": UUID, "sessionId": ""}, False),
        ({"eventType": "view", "flowId": UUID, "sessionId": "a\0"}, False),
        ({"eventType": "view", "flowId": UUID, "timestamp": -1}, False),
        ({"eventType": "custom", "name": "invited"}, True),
        ({"eventType": "custom", "name": "invited", "stepId": None}, True),
        ({"eventType": "custom"}, False),
        ({"eventType": "custom", "name": None}, False),
        ({"eventType": "custom", "name": "invited", "stepId": UUID}, False),
        ({"eventType": "custom", "name": "invited", "stepId": UUID, "flowId": UUID}, True),
        ({"eventType": "custom", "name": "x" * 256}, False),
    ],
)
def test_the_edge_and_the_schema_of_events_take_the_same(event: dict[str, Any], taken: bool) -> None:
    body = {"events": [event]}
    assert valid("request.sendEvents.json", body) is taken
    if taken:
        decode(json.dumps(body).encode())
    else:
        with pytest.raises(Refusal):
            decode(json.dumps(body).encode())


def test_what_is_in_the_log_is_valid_under_its_schema() -> None:
    event = records.RecordEvent(id=uuid7(NOW), type="custom", name="a", user="a" * 64, data=msgspec.Raw(b"[1]"))
    head: dict[str, Any] = {"v": 1, "org": UUID, "received": NOW}
    of_step = head | {"id": uuid7(NOW), "flow": UUID, "step": UUID}
    lines: list[tuple[str, Any]] = [
        ("record.progress.json", records.Progress(**of_step, user="a" * 64)),
        ("record.fingerprint.json", records.Fingerprint(**of_step, fingerprint=msgspec.Raw(b"{}"))),
        ("record.health.json", records.Health(**of_step, found=True)),
        ("record.refused.json", records.Refused(**head, route="/api/v1/events", reason="invalid")),
        ("record.events.json", records.Envelope(**head, events=[event], sent=NOW)),
        ("record.heartbeat.json", records.Heartbeat(**head, id=uuid7(NOW), host="example.org")),
    ]
    assert sorted(name for name, _ in lines) == [name for name in sorted(schema_files()) if name.startswith("record.")]
    for name, line in lines:
        value = json.loads(records.encode(line))
        assert valid(name, value)
        assert not valid(name, value | {"received": 0})
        assert not valid(name, {field: value[field] for field in value if field != "org"})


def test_there_is_a_release_to_compare_with() -> None:
    assert RELEASED


@pytest.mark.parametrize("released", RELEASED, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_all_that_a_release_took_is_still_taken(released: Path) -> None:
    assert (FOLDER / released.name).exists(), "what was released cannot go away"
    assert narrowed(json.loads(released.read_text()), load(released.name)) == []


def events_schema() -> dict[str, Any]:
    return copy.deepcopy(load("request.sendEvents.json"))


def test_a_schema_takes_all_that_it_took_itself() -> None:
    for name in schema_files():
        assert narrowed(load(name), load(name)) == []


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d["Event"]["required"].append("id"), "$.events[].id: became required"),
        (lambda d: d["Event"]["properties"]["eventType"]["enum"].remove("skip"), "$.events[].eventType: fewer values"),
        (lambda d: d["Event"]["properties"].pop("url"), "$.events[].url: is gone"),
        (lambda d: d["Event"]["properties"]["name"]["anyOf"].pop(), "$.events[].name: type ['null'] became ['string']"),
        (lambda d: d["Event"]["properties"]["name"]["anyOf"][0].update(maxLength=9), "$.events[].name: maxLength fell"),
        (lambda d: d["Event"]["properties"]["url"]["anyOf"][0].update(minLength=1), "$.events[].url: minLength rose"),
        (lambda d: d["Event"]["properties"]["id"]["anyOf"][0].update(pattern="^a$"), "$.events[].id: pattern changed"),
        (lambda d: d["Event"]["properties"]["data"].update(type="string"), "$.events[].data: type"),
        (lambda d: d["Event"].update(additionalProperties=False), "$.events[]: additionalProperties are no longer"),
        (lambda d: d["Event"]["allOf"].append({"required": ["id"]}), "$.events[]: allOf changed"),
        (lambda d: d["EventsRequest"]["properties"]["events"].update(maxItems=9), "$.events: maxItems fell"),
        (lambda d: d["EventsRequest"].update(dependentRequired={}), "$: dependentRequired is not understood"),
    ],
)
def test_a_schema_that_takes_less_is_found_out(change: Change, problem: str) -> None:
    new = events_schema()
    change(new["$defs"])
    found = narrowed(events_schema(), new)
    assert len(found) == 1
    assert found[0].startswith(problem)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["Event"]["properties"].update(locale={"type": "string"}),
        lambda d: d["Event"]["properties"]["eventType"]["enum"].append("hover"),
        lambda d: d["Event"].pop("allOf"),
        lambda d: d["Event"]["properties"]["name"]["anyOf"][0].update(maxLength=300),
        lambda d: d["Event"]["properties"]["name"]["anyOf"].append({"type": "integer"}),
        lambda d: d["Event"]["properties"].update(name={}),
        lambda d: d["EventsRequest"].update(required=[]),
        lambda d: d["EventsRequest"]["properties"]["sentAt"]["anyOf"].pop(1),  # an integer is a number too
    ],
)
def test_a_schema_that_takes_more_is_fine(change: Change) -> None:
    new = events_schema()
    change(new["$defs"])
    assert narrowed(events_schema(), new) == []
