"""The reader's limits and its cross-origin answers, over real HTTP."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from backends.store.engine import open_engine
from schemas.limits import LIMITS, STRANGERS
from tests.issuer import USER
from tests.limits import TOLD, over, standing
from tests.reading import RANGE, World, bearer, make_world, path, reading

NOBODY = "99999999-9999-4999-8999-999999999999"


@pytest.fixture
def world(store_url: str) -> Iterator[World]:
    engine = open_engine(store_url)
    yield make_world(engine)
    engine.dispose()


@pytest.fixture
def client(store_url: str, world: World) -> Iterator[httpx.Client]:
    with reading(store_url) as client:
        yield client


def test_a_flows_requests_count_for_its_organisation_whoever_asks(client: httpx.Client, world: World) -> None:
    world.catalog.set_limit(world.organisation, "analytics", 4)
    world.catalog.add_member(world.organisation, NOBODY)
    world.catalog.add_member(world.others, USER)
    asked = [path(world.flow), path(world.empty), path(world.flow, export=True), path(world.flow)]
    users = [USER, USER, NOBODY, NOBODY]
    found = [client.get(p, params=RANGE, headers=bearer(sub=u)) for p, u in zip(asked, users, strict=True)]
    assert [standing(f) for f in found] == [(200, 4, 3), (200, 4, 2), (200, 4, 1), (200, 4, 0)]
    for export in (False, True):
        assert over(client.get(path(world.flow, export), params=RANGE, headers=bearer()))
    assert client.head(path(world.flow), headers=bearer()).status_code == 429
    # The same user's other organisation is another bucket.
    assert standing(client.get(path(world.theirs), headers=bearer())) == (200, LIMITS["analytics"], 59)
    # A raised limit holds from the next request on.
    world.catalog.set_limit(world.organisation, "analytics", 10)
    assert client.get(path(world.flow), params=RANGE, headers=bearer()).status_code == 200


def test_what_comes_to_no_flow_counts_for_the_address(client: httpx.Client, world: World) -> None:
    token, key = bearer(), bearer(world.key)
    bad = {"from": "soon"}
    attempts: list[tuple[int, str, str, dict[str, Any]]] = [
        (401, "GET", path(world.flow), {}),
        (403, "GET", path(world.flow), {"headers": key}),
        (404, "GET", path(world.theirs), {"headers": token}),
        (404, "GET", path(NOBODY, export=True), {"headers": token}),
        (404, "GET", "/nowhere", {"headers": token}),
        (400, "GET", path("no-uuid"), {"headers": token}),
        (400, "GET", path(world.flow), {"headers": token, "params": bad}),
        (405, "POST", path(world.flow), {"headers": token}),
        (405, "DELETE", path(world.flow), {"headers": token}),
    ]
    for n, (status, method, url, given) in enumerate(attempts, 1):
        assert standing(client.request(method, url, **given)) == (status, STRANGERS, STRANGERS - n)
    for _ in range(STRANGERS - len(attempts)):
        assert client.get(path(world.flow)).status_code == 401
    for _, method, url, given in attempts:
        assert over(client.request(method, url, **given))
    assert standing(client.get(path(world.flow), headers=token)) == (200, 60, 59)  # nobody with a token is shut out


def test_addresses_behind_a_trusted_proxy_are_counted_apart(store_url: str, world: World) -> None:
    with reading(store_url, trusted_proxies="127.0.0.1") as client:
        for left in (59, 58):
            for address in ("203.0.113.9", "203.0.113.10"):
                found = client.get(path(world.flow), headers={"X-Forwarded-For": f"198.51.100.1, {address}"})
                assert standing(found) == (401, 60, left)


def test_a_preflight_counts_for_nobody_and_carries_no_limit(client: httpx.Client, world: World) -> None:
    for _ in range(STRANGERS + 1):
        answer = client.options(path(world.flow))
        assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert not set(TOLD) & set(answer.headers)
    assert standing(client.get(path(world.flow))) == (401, 60, 59)
    assert client.options("/nowhere").status_code == 404


# CORS

DASHBOARD, OTHER = "https://app.example", "https://other.example"


def cross_origin(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("export", [False, True], ids=["json", "csv"])
def test_a_configured_dashboard_may_read_every_answer_and_nobody_else(
    store_url: str, world: World, export: bool
) -> None:
    asked = path(world.flow, export)
    exposed = "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, Content-Disposition"
    with reading(store_url, dashboard_origins=f"http://localhost:3000, {DASHBOARD}") as client:
        for headers, url, status in (
            (bearer(), asked, 200),
            ({}, asked, 401),
            (bearer(world.key), asked, 403),
            (bearer(), path(NOBODY), 404),
            (bearer(), f"{asked}?from=soon", 400),
        ):
            for origin in (DASHBOARD, "http://localhost:3000"):
                answer = client.get(url, headers=headers | {"Origin": origin})
                assert answer.status_code == status
                assert cross_origin(answer) == {
                    "access-control-allow-origin": origin,
                    "access-control-expose-headers": exposed,
                }
                assert answer.headers["vary"] == "Origin"
            for others in (OTHER, "null", "https://app.example.evil", "http://app.example", f"{DASHBOARD}:8443", ""):
                answer = client.get(url, headers=headers | ({"Origin": others} if others else {}))
                assert (answer.status_code, cross_origin(answer), answer.headers["vary"]) == (status, {}, "Origin")


def test_a_dashboards_preflight_is_answered_and_no_others(store_url: str, world: World) -> None:
    asking = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    with reading(store_url, dashboard_origins=DASHBOARD) as client:
        answer = client.options(path(world.flow), headers=asking | {"Origin": DASHBOARD})
        assert (answer.status_code, answer.content) == (204, b"")
        found = cross_origin(answer)
        assert found.pop("access-control-expose-headers")
        assert found == {
            "access-control-allow-origin": DASHBOARD,
            "access-control-allow-methods": "GET, HEAD",
            "access-control-allow-headers": "Authorization",
            "access-control-max-age": "86400",
        }
        other = client.options(path(world.flow), headers=asking | {"Origin": OTHER})
        assert (other.status_code, cross_origin(other)) == (204, {})


def test_by_default_no_origin_may_read(client: httpx.Client, world: World) -> None:
    for method in ("GET", "OPTIONS"):
        answer = client.request(method, path(world.flow), headers=bearer() | {"Origin": DASHBOARD})
        assert answer.is_success and cross_origin(answer) == {} and "vary" not in answer.headers
