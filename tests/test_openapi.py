"""The OpenAPI document: it is served, it is valid, and it says what is served, no less and no more."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from sqlalchemy import Engine
from starlette.routing import Route

from backends.store.engine import open_engine
from backends.store.migrate import migrate
from ingest.endpoint import Endpoint
from ingest.main import EdgeService
from readers.main import ReaderService
from schemas import openapi
from schemas.limits import STRANGERS
from schemas.openapi.operations import OPERATIONS
from tests import edges, reading
from tests.issuer import SECRET

PATH = "/api/v1/openapi.json"
LIMIT_HEADERS = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[edges.Running]:
    world = edges.make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    with edges.edge(world) as client:
        yield edges.Running(world, client)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{tmp_path}/routes.db")
    yield opened
    opened.dispose()


def document() -> dict[str, Any]:
    return openapi.document("1.2.3")


def plain(path: str) -> str:
    """A path without the names of its parameters."""
    return re.sub(r"{\w+}", "{}", path)


def test_every_operation_that_is_served_is_in_the_document_and_the_other_way_round(
    running: edges.Running, engine: Engine
) -> None:
    edge = EdgeService(running.world.settings, engine)
    served: dict[tuple[str, str], str | None] = {}
    for route in edge.app().routes:
        assert isinstance(route, Route)
        assert isinstance(route.app, Endpoint)
        for method, operation in route.app.operations.items():
            served[method, plain(route.path)] = operation.bucket
    reader = ReaderService(replace(running.world.settings, jwt_secret=SECRET), engine)
    for route in reader.routes():
        assert isinstance(route, Route)
        served["GET", plain(route.path)] = "analytics"
    reader.close()
    documented = {
        (method.upper(), plain(path)): method for path, methods in document()["paths"].items() for method in methods
    }
    assert sorted(documented) == sorted(served)
    assert {(op.method, plain(op.path)): op.bucket for op in OPERATIONS} == served


def test_every_path_answers_head_where_it_answers_get_and_options_always(running: edges.Running) -> None:
    for path, methods in document()["paths"].items():
        if "analytics" not in path:
            concrete = path.replace("{id}", edges.FLOW)
            allowed = running.client.options(concrete).headers["allow"].split(", ")
            wanted = {"OPTIONS", *(m.upper() for m in methods)} | ({"HEAD"} if "get" in methods else set())
            assert set(allowed) == wanted


def test_the_document_is_for_everybody_and_counts_by_address(running: edges.Running) -> None:
    first = running.client.get(PATH, headers={"Origin": "https://docs.example.org"})
    second = running.client.get(PATH)
    assert first.status_code == 200
    assert first.headers["content-type"] == "application/json"
    assert first.headers["access-control-allow-origin"] == "https://docs.example.org"
    assert first.headers["cache-control"] == "public, max-age=300"
    assert first.json()["openapi"] == "3.1.0"
    assert first.headers["x-ratelimit-limit"] == str(STRANGERS)
    assert int(second.headers["x-ratelimit-remaining"]) == int(first.headers["x-ratelimit-remaining"]) - 1


def test_who_has_the_document_need_not_read_it_again(running: edges.Running) -> None:
    tag = running.client.get(PATH).headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = running.client.get(PATH, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert set(again.headers) >= LIMIT_HEADERS
    assert running.client.get(PATH, headers={"If-None-Match": '"other"'}).status_code == 200
    head = running.client.head(PATH)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    whole = document()
    found = set(references(whole))
    for reference in found:
        assert resolve(whole, reference) is not None
    kinds = ("schemas", "responses", "headers")
    there = {f"#/components/{kind}/{name}" for kind in kinds for name in whole["components"][kind]}
    assert there == found


def test_every_example_is_valid_under_its_schema() -> None:
    whole = document()
    examples = list(media_types(whole))
    assert len(examples) > len(OPERATIONS)
    for media in examples:
        if "example" in media:
            validate(whole, media["schema"], media["example"])


def test_every_operation_says_its_limit_headers_and_its_errors() -> None:
    for path, methods in document()["paths"].items():
        for method, described in methods.items():
            where = f"{method} {path}"
            success = next(answer for status, answer in described["responses"].items() if status.startswith("2"))
            assert {name.lower() for name in success["headers"]} == LIMIT_HEADERS, where
            assert {"429", "431", "500"} <= set(described["responses"]), where
            if described["security"]:
                assert {"401", "503"} <= set(described["responses"]), where
            if "requestBody" in described:
                assert {"400", "408", "413", "415"} <= set(described["responses"]), where
            if "{id}" in path:
                assert {"400", "404"} <= set(described["responses"]), where
            assert ("403" in described["responses"]) is ({"sessionToken": []} in described["security"]), where


@pytest.mark.parametrize("status", [400, 401, 413, 415])
def test_errors_are_as_their_examples_say(running: edges.Running, status: int) -> None:
    key = edges.bearer(running.world.keys[0])
    bodies = {400: b'{"events":[{"eventType":"seen"}]}', 401: b"{}", 413: b" " * 600_000, 415: b"{}"}
    headers = {401: {}, 415: key | {"Content-Type": "image/png"}}.get(status, key)
    answer = running.client.post(edges.EVENTS, content=bodies[status], headers=headers)
    described = resolve(document(), f"#/components/responses/{status}")
    media = described["content"]["application/json"]
    assert (answer.status_code, answer.json()) == (status, media["example"])
    strict(document(), media["schema"], answer.json())
    assert {name.lower() for name in described["headers"]} <= set(answer.headers)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_heartbeat_answers_what_the_document_says(running: edges.Running, method: str) -> None:
    answer = running.client.request(method, edges.HEARTBEAT, headers=edges.bearer(running.world.keys[0]))
    strict(document(), success_schema(edges.HEARTBEAT, method), answer.json())


def test_events_are_answered_as_the_document_says(running: edges.Running) -> None:
    described = document()["paths"][edges.EVENTS]["post"]
    example = described["requestBody"]["content"]["application/json"]["example"]
    answer = running.post(example)
    assert answer.status_code == 202
    strict(document(), success_schema(edges.EVENTS, "POST"), answer.json())
    assert answer.json() == described["responses"]["202"]["content"]["application/json"]["example"]


def test_analytics_has_the_fields_of_the_document_and_no_others(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    engine = open_engine(url)
    migrate(engine)
    world = reading.make_world(engine)
    with reading.reading(url) as client:
        answer = client.get(reading.path(world.flow), params=reading.RANGE, headers=reading.bearer())
    engine.dispose()
    assert answer.json()["customEvents"]
    strict(document(), success_schema("/api/v1/flows/{id}/analytics", "GET"), answer.json())


def test_the_strict_check_finds_a_field_that_is_not_documented() -> None:
    schema = success_schema(edges.EVENTS, "POST")
    strict(document(), schema, {"accepted": 1})
    for wrong in ({"accepted": 1, "more": 2}, {}, {"accepted": "1"}):
        with pytest.raises(jsonschema.ValidationError):
            strict(document(), schema, wrong)


def success_schema(path: str, method: str) -> dict[str, Any]:
    responses = document()["paths"][path][method.lower()]["responses"]
    answer = next(answer for status, answer in responses.items() if status.startswith("2"))
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
    return schema


def validate(whole: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    jsonschema.Draft202012Validator({**schema, "components": whole["components"]}).validate(value)


def strict(whole: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Valid, and without any field that the document does not name."""
    validate(closed(whole), schema, value)


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items()}
    objects = schema.get("type") == "object" and "properties" in schema and "additionalProperties" not in schema
    return inner | {"additionalProperties": False} if objects else inner


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def media_types(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield from value["content"].values() if isinstance(value.get("content"), dict) else ()
        for item in value.values():
            yield from media_types(item)


def resolve(whole: dict[str, Any], reference: str) -> Any:
    found: Any = whole
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_the_document_is_what_is_served(running: edges.Running) -> None:
    served: httpx.Response = running.client.get(PATH)
    assert served.json()["paths"] == document()["paths"]
