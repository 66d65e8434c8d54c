"""`zenstep org limits` on both stores, and an edge that follows it."""

import uuid
from functools import partial
from pathlib import Path

import pytest

from ingest.keys import KeyCache
from schemas.limits import LIMITS, MAX_LIMIT
from tests.commands import Zenstep
from tests.edges import HEARTBEAT, bearer, edge, make_world
from tests.working import until


@pytest.fixture
def zenstep(store_url: str, tmp_path: Path) -> Zenstep:
    return Zenstep(store_url, tmp_path)


def test_an_organisation_has_the_documented_limits_until_they_are_changed(zenstep: Zenstep) -> None:
    organisation, other = zenstep.organisation(), zenstep.organisation("Birch")
    assert zenstep.json("org", "limits", organisation) == {"organisation_id": organisation, "limits": LIMITS}
    limits = partial(zenstep.json, "org", "limits", organisation, "--bucket")
    assert limits("events", "--per-minute", "1200")["limits"] == LIMITS | {"events": 1200}
    assert limits("analytics", "--per-minute", "5")["limits"] == LIMITS | {"events": 1200, "analytics": 5}
    assert limits("events", "--per-minute", str(MAX_LIMIT))["limits"]["events"] == MAX_LIMIT
    assert limits("events", "--default")["limits"] == LIMITS | {"analytics": 5}
    assert limits("events", "--default")["limits"] == LIMITS | {"analytics": 5}
    assert zenstep.json("org", "limits", other)["limits"] == LIMITS


def test_limits_are_listed_for_people(zenstep: Zenstep) -> None:
    organisation = zenstep.organisation()
    printed = zenstep("org", "limits", organisation, "--bucket", "health", "--per-minute", "12000")
    rows = [line.split() for line in printed.splitlines()]
    expected = LIMITS | {"health": 12000}
    assert rows == [[name, f"{n:,}", "a", "minute"] for name, n in expected.items()]


def test_what_cannot_be_a_limit_is_refused_and_changes_nothing(zenstep: Zenstep) -> None:
    organisation = zenstep.organisation()
    mistakes = [
        ["--bucket", "events"],
        ["--per-minute", "5"],
        ["--default"],
        ["--bucket", "events", "--per-minute", "5", "--default"],
        ["--bucket", "strangers", "--per-minute", "5"],
        *(["--bucket", "events", "--per-minute", n] for n in ("0", "-1", "1.5", "many", str(MAX_LIMIT + 1))),
    ]
    for mistake in mistakes:
        assert zenstep.refuses("org", "limits", organisation, *mistake)
    assert zenstep.json("org", "limits", organisation)["limits"] == LIMITS
    nobody = str(uuid.uuid4())
    for more in ([], ["--bucket", "events", "--per-minute", "5"]):
        assert zenstep.refuses("org", "limits", nobody, *more) == f"there is no organisation {nobody}"


def test_a_running_edge_follows(
    store_url: str, zenstep: Zenstep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.main.KeyCache", partial(KeyCache, fresh=0.05))  # instead of 20 s
    world = make_world(f"sqlite:///{tmp_path}/log.db", store_url)
    with edge(world) as client:

        def limit() -> str:
            return client.get(HEARTBEAT, headers=bearer(world.keys[0])).headers["x-ratelimit-limit"]

        assert limit() == "10"
        zenstep("org", "limits", world.organisations[0], "--bucket", "heartbeat", "--per-minute", "10000")
        until(lambda: limit() == "10000")
        zenstep("org", "limits", world.organisations[0], "--bucket", "heartbeat", "--default")
        until(lambda: limit() == "10")


def test_a_key_is_looked_up_again_within_the_thirty_seconds_that_are_promised() -> None:
    async def nobody(digest: str) -> None:
        return None

    assert KeyCache(nobody)._fresh <= 20
