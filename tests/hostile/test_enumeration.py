"""Another organisation's ids, on every route that takes one: nothing tells them from ids that do not exist."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.store.catalog import Catalog, Flow, Step
from backends.store.engine import open_engine
from backends.store.migrate import migrate
from tests import edges, reading
from tests.edges import Running, World, bearer

FLOW_ID, FLOW_STEP, DRAFT, DRAFT_STEP = (str(uuid.uuid4()) for _ in range(4))
STEP_BODIES: dict[str, Any] = {"fingerprint": {"fingerprint": {"tag": "a"}}, "health": {"found": True}}
# By route: the ids it is asked for, how, and the body.
READS = [
    ("GET", "/flows/{id}", "flow", None),
    ("GET", "/flows/{id}/checklist-progress?userId=ada", "flow", None),
]
WRITES = [
    ("POST", "/flows/{id}/complete", "flow", {"sessionId": "s"}),
    ("POST", "/flows/{id}/checklist-progress", "flow", {"userId": "ada", "stepId": FLOW_STEP}),
    ("POST", "/steps/{id}/fingerprint", "step", STEP_BODIES["fingerprint"]),
    ("POST", "/steps/{id}/health", "step", STEP_BODIES["health"]),
]
ANALYTICS = ["/flows/{id}/analytics", "/flows/{id}/analytics/export.csv"]
CASES = READS + WRITES
every_route = pytest.mark.parametrize(
    ("method", "path", "kind", "body"), CASES, ids=[f"{method} {path}" for method, path, *_ in CASES]
)
NOT_FOUND = b'{"error":"Not found"}'
COUNTS = ("x-ratelimit-remaining", "x-ratelimit-reset", "date")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The first organisation has a published flow and a draft; the second has neither."""
    folder: Path = tmp_path_factory.mktemp("enumeration")
    world = edges.make_world(f"sqlite:///{folder}/log.db", f"sqlite:///{folder}/store.db")
    catalog = world.catalog()
    owner = world.organisations[0]
    catalog.import_flow(
        Flow(owner, FLOW_ID, "Theirs", "checklist", [Step(FLOW_STEP, 0, "One")], 1),
        Flow(owner, DRAFT, "Draft", "checklist", [Step(DRAFT_STEP, 0, "One")]),
    )
    return world


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Running]:
    with edges.edge(world) as client:
        yield Running(world, client)


def ask(running: Running, key: int, method: str, path: str, asked: str, body: Any) -> httpx.Response:
    url = "/api/v1" + path.replace("{id}", asked)
    return running.client.request(method, url, headers=bearer(running.world.keys[key]), json=body)


def seen(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All that tells two answers apart, but for the time and how many requests are left."""
    headers = [(name, value) for name, value in answer.headers.multi_items() if name not in COUNTS]
    return answer.status_code, answer.content, headers


@every_route
def test_what_another_organisation_has_is_not_there(
    running: Running, method: str, path: str, kind: str, body: Any
) -> None:
    theirs, draft = (FLOW_ID, DRAFT) if kind == "flow" else (FLOW_STEP, DRAFT_STEP)
    nobodys = ask(running, 1, method, path, str(uuid.uuid4()), body)
    assert (nobodys.status_code, nobodys.content) == (404, NOT_FOUND)
    for asked in (theirs, theirs.upper(), draft, running.world.organisations[0], str(uuid.UUID(int=0))):
        assert seen(ask(running, 1, method, path, asked, body)) == seen(nobodys), asked
    assert ask(running, 0, method, path, theirs, body).status_code in (200, 202), "its own is there"


@pytest.mark.parametrize(("method", "path", "kind", "body"), READS, ids=[path for _, path, *_ in READS])
def test_a_draft_of_ones_own_is_not_there_for_a_page(
    running: Running, method: str, path: str, kind: str, body: Any
) -> None:
    nobodys = ask(running, 0, method, path, str(uuid.uuid4()), body)
    assert seen(ask(running, 0, method, path, DRAFT, body)) == seen(nobodys)


@every_route
@pytest.mark.parametrize("key", ["w" * 32, ""], ids=["a wrong key", "no key"])
def test_who_has_no_key_learns_nothing_at_all(
    running: Running, key: str, method: str, path: str, kind: str, body: Any
) -> None:
    headers = bearer(key) if key else {}
    ids = [FLOW_ID if kind == "flow" else FLOW_STEP, str(uuid.uuid4()), "no-uuid"]
    answers = {
        str(seen(running.client.request(method, "/api/v1" + path.replace("{id}", asked), headers=headers, json=body)))
        for asked in ids
    }
    assert len(answers) == 1


@every_route
def test_a_bad_body_says_nothing_of_whether_there_is_such_an_id(
    running: Running, method: str, path: str, kind: str, body: Any
) -> None:
    if method == "GET":
        path, sent = path.partition("?")[0] + "?userId=" + "u" * 300, None
    else:
        sent = {"sessionId": 1, "userId": 1, "fingerprint": 1, "found": 1}
    theirs, nobodys = (
        ask(running, 1, method, path, asked, sent)
        for asked in ((FLOW_ID, FLOW_STEP)[kind == "step"], str(uuid.uuid4()))
    )
    assert seen(theirs) == seen(nobodys)


def test_lists_hold_ones_own_alone(running: Running) -> None:
    lists = [ask(running, key, "GET", "/flows", "", None).json()["flows"] for key in (0, 1)]
    assert [[flow["flowId"] for flow in flows] for flows in lists] == [[FLOW_ID], []]


def test_every_route_with_an_id_is_asked_above(running: Running) -> None:
    document = running.client.get("/api/v1/openapi.json").json()
    documented = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, methods in document["paths"].items()
        for method in methods
        if "{" in path and method in ("get", "post", "put", "patch", "delete")
    }
    asked = {(method, path.partition("?")[0]) for method, path, *_ in CASES} | {("GET", path) for path in ANALYTICS}
    assert asked == documented, json.dumps(sorted(documented))


@pytest.mark.parametrize("path", ANALYTICS)
def test_the_numbers_of_another_organisation_are_not_there(path: str, tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/reader.db")
    migrate(engine)
    world = reading.make_world(engine)
    Catalog(engine).add_member(world.others, str(uuid.uuid4()))
    with reading.reading(f"sqlite:///{tmp_path}/reader.db") as client:

        def get(asked: str, query: str = "", **claims: Any) -> httpx.Response:
            return client.get("/api/v1" + path.replace("{id}", asked) + query, headers=reading.bearer(**claims))

        nobodys = get(str(uuid.uuid4()))
        assert (nobodys.status_code, nobodys.content) == (404, NOT_FOUND)
        assert get(world.flow.flow_id).status_code == 200
        for asked in (world.theirs.flow_id, world.theirs.flow_id.upper(), world.others, world.theirs.steps[0].step_id):
            assert seen(get(asked)) == seen(nobodys)
        narrowed = {"org_id": world.others}
        assert seen(get(world.theirs.flow_id, app_metadata=narrowed)) == seen(nobodys)
        bad = [
            seen(get(asked, "?from=soon")) for asked in (world.flow.flow_id, world.theirs.flow_id, str(uuid.uuid4()))
        ]
        assert bad[0] == bad[1] == bad[2]
    engine.dispose()
