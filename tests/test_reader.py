"""The reader's answers over real HTTP, byte for byte where the contract says them, on both stores."""

import json
import time
import uuid
from collections.abc import Iterator

import httpx
import pytest

from backends.store.catalog import Flow, Step
from backends.store.engine import open_engine
from tests.issuer import ISSUER, USER, SigningKey, secret_token, serving_jwks
from tests.reading import RANGE, World, bearer, make_world, path, reading
from tests.worlds import NOW

UNAUTHORIZED = b'{"error":"Unauthorized"}'
FORBIDDEN = b'{"error":"Forbidden"}'
NOT_FOUND = b'{"error":"Not found"}'
UNAVAILABLE = b'{"error":"Service unavailable"}'
COUNTS = ("x-ratelimit-remaining", "x-ratelimit-reset")
STRANGER = "99999999-9999-4999-8999-999999999999"
both_routes = pytest.mark.parametrize("export", [False, True], ids=["json", "csv"])


@pytest.fixture
def world(store_url: str) -> Iterator[World]:
    engine = open_engine(store_url)
    yield make_world(engine)
    engine.dispose()


@pytest.fixture
def client(store_url: str, world: World) -> Iterator[httpx.Client]:
    with reading(store_url) as client:
        yield client


def answer(response: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that a client could tell two answers apart by, but for how many requests it has left."""
    headers = {name: value for name, value in response.headers.items() if name not in COUNTS}
    return response.status_code, response.content, headers


# Who asks


@both_routes
def test_whatever_is_wrong_with_a_credential_the_answer_is_the_same(
    client: httpx.Client, world: World, export: bool
) -> None:
    key = {"key": world.key}
    revoked = world.catalog.create_key(world.organisation)
    world.catalog.revoke_key(revoked)
    attempts: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        ({"Authorization": ""}, {}),
        ({"Authorization": "Bearer"}, {}),
        ({"Authorization": f"Basic {secret_token()}"}, {}),
        ({"Authorization": secret_token()}, {}),
        (bearer("no token"), {}),
        (bearer("é"), {}),
        (bearer("x" * 32), {}),
        (bearer(revoked), {}),
        (bearer(exp=int(time.time()) - 1), {}),
        (bearer(role="anon"), {}),
        (bearer(aud="other"), {}),
        (bearer(iss="https://other.example"), {}),
        (bearer(sub="somebody"), {}),
        (bearer(secret_token()[:-4] + "AAAA"), {}),
        (bearer("x" * 20_000), {}),
        ({}, {"key": "x" * 32}),
        ({}, {"key": revoked}),
        ({}, {"key": ""}),
        ({}, {"key": secret_token()}),  # a session token goes into the header
        ({"Authorization": "Bearer nothing"}, key),  # the header wins
        ({"Authorization": ""}, key),
    ]
    found = [client.get(path(world.flow, export), params=p, headers=httpx.Headers(h, "utf-8")) for h, p in attempts]
    headers = {"content-length": "24", "content-type": "application/json", "x-ratelimit-limit": "60"}
    assert all(answer(f) == (401, UNAUTHORIZED, headers) for f in found)


@both_routes
def test_a_snippet_key_is_forbidden_however_it_is_sent(client: httpx.Client, world: World, export: bool) -> None:
    for headers, parameters in (
        (bearer(world.key), {}),
        ({"Authorization": f"bearer   {world.key}"}, {}),
        ({}, {"key": world.key}),
        (bearer(world.key), {"key": "x" * 32}),
    ):
        found = client.get(path(world.flow, export), params=parameters, headers=headers)
        assert (found.status_code, found.content) == (403, FORBIDDEN)


def test_a_bad_credential_learns_nothing_of_what_it_asked_for(client: httpx.Client, world: World) -> None:
    for asked in (path(world.flow), path(STRANGER), path("no-uuid"), path(world.flow) + "?from=soon"):
        assert client.get(asked).content == UNAUTHORIZED
        assert client.get(asked, headers=bearer(world.key)).content == FORBIDDEN


@both_routes
def test_what_is_not_ones_own_is_not_there(client: httpx.Client, world: World, export: bool) -> None:
    mine, theirs, nobodys = (path(flow, export) for flow in (world.flow, world.theirs, STRANGER))
    narrowed = {"org_id": world.others}
    found = [
        client.get(nobodys, headers=bearer()),
        client.get(theirs, headers=bearer()),
        client.get(mine, headers=bearer(sub=STRANGER)),
        client.get(mine, headers=bearer(app_metadata=narrowed)),
        client.get(theirs, headers=bearer(app_metadata=narrowed)),  # a choice is no membership
        client.get(theirs, headers=bearer(user_metadata=narrowed)),
    ]
    assert answer(found[0])[:2] == (404, NOT_FOUND)
    assert all(answer(f) == answer(found[0]) for f in found)


def test_a_member_of_several_reads_each_unless_the_token_picks_one(client: httpx.Client, world: World) -> None:
    world.catalog.add_member(world.others, USER)
    assert [client.get(path(f), headers=bearer()).status_code for f in (world.flow, world.theirs)] == [200, 200]
    picked = bearer(app_metadata={"org_id": world.others.upper()})
    assert [client.get(path(f), headers=picked).status_code for f in (world.flow, world.theirs)] == [404, 200]


def test_where_two_organisations_have_a_flow_of_one_id_it_is_the_one_joined_first(
    client: httpx.Client, world: World
) -> None:
    names = {world.organisation: "Ours", world.others: "Theirs"}
    for organisation, name in names.items():
        world.catalog.import_flow(Flow(organisation, STRANGER, name, "tour", []))
    both = world.catalog.memberships
    world.catalog.add_member(world.others, USER)
    for organisation in both(USER):
        picked = bearer(app_metadata={"org_id": organisation})
        assert client.get(path(STRANGER), headers=picked).json()["flowName"] == names[organisation]
    assert client.get(path(STRANGER), headers=bearer()).json()["flowName"] == names[both(USER)[0]]


def test_tokens_signed_with_a_public_key_are_read(store_url: str, world: World) -> None:
    key = SigningKey("ES256")
    with (
        serving_jwks(key) as jwks,
        reading(store_url, jwt_algorithm="ES256", jwks_url=jwks.url, jwt_issuer=ISSUER) as client,
    ):
        assert client.get(path(world.flow), headers=bearer(key.token())).status_code == 200
        assert client.get(path(world.flow), headers=bearer()).content == UNAUTHORIZED
        assert client.get(path(world.flow), headers=bearer(SigningKey("ES256").token())).content == UNAUTHORIZED


# What for


@both_routes
def test_an_id_that_is_no_uuid_is_named(client: httpx.Client, world: World, export: bool) -> None:
    known = world.flow.flow_id
    others = ("7", "flow", f"{{{known}}}", f"urn:uuid:{known}", f"{known}0", known.replace("-", ""), "%27;--")
    for text in (*others, f" {known}", f"{known}%0A", f"{known}%00"):
        found = client.get(path(text, export), headers=bearer())
        assert found.status_code == 400, text
        assert found.content == b'{"error":"Validation failed","details":[{"path":"id","message":"Expected a UUID"}]}'


def test_an_id_in_capitals_is_the_same_id(client: httpx.Client, world: World) -> None:
    found = client.get(path(world.flow.flow_id.upper()), headers=bearer())
    assert found.json()["flowId"] == world.flow.flow_id


@both_routes
def test_every_bad_parameter_is_named(client: httpx.Client, world: World, export: bool) -> None:
    parameters = {"from": "soon", "to": "2026-03-30T00:01:00Z", "interval": "week", "timezone": "Nowhere"}
    found = client.get(path(world.flow, export), params=parameters, headers=bearer())
    assert found.status_code == 400
    content = found.json()
    assert list(content) == ["error", "details"]
    assert content["error"] == "Validation failed"
    assert {detail["path"] for detail in content["details"]} == set(parameters)
    assert all(detail["message"].startswith("Expected ") for detail in content["details"])
    assert not any(value in found.text for value in parameters.values())


def test_a_bad_range_says_nothing_of_whether_there_is_such_a_flow(client: httpx.Client, world: World) -> None:
    parameters = {"from": "9999-12-31T12:00:00Z", "timezone": "Pacific/Kiritimati"}
    found = [client.get(path(f), params=parameters, headers=bearer()) for f in (world.flow, world.theirs, STRANGER)]
    assert found[0].status_code == 400
    assert all(answer(f) == answer(found[0]) for f in found)


@both_routes
def test_another_method_is_not_allowed(client: httpx.Client, world: World, export: bool) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE"):
        found = client.request(method, path(world.flow, export), headers=bearer())
        assert (found.status_code, found.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert found.content == b'{"error":"Method not allowed"}'


def test_a_path_that_is_not_documented_is_not_found(client: httpx.Client, world: World) -> None:
    known = path(world.flow)
    for asked in ("/", "/api/v1/flows", f"{known}/", f"{known}/export", f"{known}/export.csv/", "/%2F", f"{known}%2F"):
        for method in ("GET", "POST", "HEAD"):
            found = client.request(method, asked, headers=bearer())
            assert found.status_code == 404
            assert found.content == (b"" if method == "HEAD" else NOT_FOUND)


@both_routes
def test_head_says_what_get_would_without_a_body(client: httpx.Client, world: World, export: bool) -> None:
    asked = path(world.flow, export)
    for headers in (bearer(), {}, bearer(world.key), bearer(sub=STRANGER)):
        got = client.get(asked, params=RANGE, headers=headers)
        head = client.head(asked, params=RANGE, headers=headers)
        assert (head.status_code, head.content) == (got.status_code, b"")
        varying = {"content-length", *COUNTS} | ({"transfer-encoding"} if export and got.is_success else set())
        assert dict(head.headers) | dict.fromkeys(varying) == dict(got.headers) | dict.fromkeys(varying)


# The numbers


def test_the_document_whole(client: httpx.Client, world: World) -> None:
    found = client.get(path(world.flow), params=RANGE | {"timezone": "Europe/Berlin"}, headers=bearer())
    assert found.status_code == 200
    assert found.headers["content-type"] == "application/json"
    document = found.json()
    lag = document.pop("lagSeconds")
    assert lag == pytest.approx(time.time() - NOW / 1000, abs=600)
    first, second, third = (step.step_id for step in world.flow.steps)
    nothing = dict.fromkeys(
        ("views", "starts", "completions", "dismissals", "skips", "sessions", "uniqueUsers", "dropOff"), 0
    )
    of_flow = {k: v for k, v in nothing.items() if k != "dropOff"}
    of_step = {k: v for k, v in nothing.items() if k != "starts"} | {"dropOffRate": 0.0}
    session = {"views": 1, "starts": 1, "sessions": 1, "uniqueUsers": 1}
    assert document == {
        "flowId": world.flow.flow_id,
        "flowName": "Flow 0",
        "flowType": "tour",
        "from": "2026-03-27T00:00:00+01:00",
        "to": "2026-03-31T00:00:00+02:00",
        "interval": "day",
        "timezone": "Europe/Berlin",
        "totals": {
            "views": 3,
            "starts": 3,
            "completions": 1,
            "dismissals": 1,
            "skips": 1,
            "sessions": 3,
            "uniqueUsers": 3,
            "completionRate": 0.3333,
            "dismissRate": 0.3333,
            "medianSecondsToComplete": 60.0,
        },
        "steps": [
            of_step
            | {"stepId": first, "position": 0, "name": "Step 0", "views": 3, "skips": 1, "dismissals": 1}
            | {"sessions": 3, "uniqueUsers": 3, "dropOff": 2, "dropOffRate": 0.6667},
            of_step | {"stepId": second, "position": 1, "name": "Step 1"},
            of_step | {"stepId": third, "position": 2, "name": "Step 2", "views": 1, "sessions": 1, "uniqueUsers": 1},
        ],
        "series": [
            of_flow | {"start": "2026-03-27T00:00:00+01:00"},
            of_flow | session | {"start": "2026-03-28T00:00:00+01:00", "completions": 1},
            of_flow | session | {"start": "2026-03-29T00:00:00+01:00", "dismissals": 1},
            of_flow | session | {"start": "2026-03-30T00:00:00+02:00", "skips": 1},
        ],
        "customEvents": [{"name": "invited", "count": 1, "uniqueUsers": 1}],
        "processedThrough": "2026-03-30T12:00:00.000Z",
    }


def test_the_end_of_the_range_is_exclusive(client: httpx.Client, world: World) -> None:
    """The first session starts at 12:00 on the 28th."""

    def starts(since: str, until: str) -> int:
        found = client.get(path(world.flow), params={"from": since, "to": until}, headers=bearer())
        return int(found.json()["totals"]["starts"])

    assert starts("2026-03-28T11:45:00Z", "2026-03-28T12:00:00Z") == 0
    assert starts("2026-03-28T12:00:00Z", "2026-03-28T12:15:00Z") == 1
    assert starts("2026-03-28", "2026-03-29T12:00:00Z") == 1


def test_a_flow_without_steps_or_events_is_zeros(client: httpx.Client, world: World) -> None:
    document = client.get(path(world.empty), params=RANGE, headers=bearer()).json()
    assert document["steps"] == document["customEvents"] == []
    totals = document["totals"]
    assert totals.pop("medianSecondsToComplete") is None
    assert set(totals.values()) == {0}
    assert len(document["series"]) == 4


def test_a_flow_that_is_not_published_is_read_all_the_same(client: httpx.Client, world: World) -> None:
    world.catalog.publish_flow(world.organisation, world.flow.flow_id, published=False)
    assert client.get(path(world.flow), params=RANGE, headers=bearer()).json()["totals"]["starts"] == 3


def test_names_of_any_script_come_back_as_they_are(client: httpx.Client, world: World) -> None:
    name = 'Привет, "мир"\n<script>=1+1</script> \U0001f600'
    world.catalog.import_flow(Flow(world.organisation, STRANGER, name, "tour", [Step(str(uuid.uuid4()), 0, name)]))
    document = client.get(path(STRANGER), headers=bearer()).json()
    assert document["flowName"] == document["steps"][0]["name"] == name


def test_the_longest_range_by_hour_is_one_row_an_hour(client: httpx.Client, world: World) -> None:
    parameters = {"from": "2026-03-15", "to": "2026-04-15", "interval": "hour", "timezone": "Asia/Kathmandu"}
    series = client.get(path(world.flow), params=parameters, headers=bearer()).json()["series"]
    assert len(series) == 31 * 24
    assert sum(point["starts"] for point in series) == 3


def test_every_error_is_json_of_the_documented_shape(client: httpx.Client, world: World) -> None:
    for response in (
        client.get("/nothing"),
        client.get(path(world.flow)),
        client.get(path(world.flow), headers=bearer(world.key)),
        client.get(path(STRANGER), headers=bearer()),
        client.post(path(world.flow)),
        client.get(path("7"), headers=bearer()),
    ):
        assert response.headers["content-type"] == "application/json"
        assert set(json.loads(response.content)) <= {"error", "details"}
        assert secret_token()[:20] not in response.text
