"""Edge, worker and reader as three processes on Kafka and PostgreSQL: 20,000 events in, the model's numbers out."""

import asyncio
import itertools
import random
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson
import pytest
import sqlalchemy as sa

from backends.store.catalog import Catalog, Flow
from backends.store.counting import Counting
from backends.store.engine import open_engine
from cli.token import session_token
from cli.traffic import Request, flows_of, play
from schemas.limits import MAX_LIMIT
from schemas.records import Envelope, RecordEvent
from tests.model import Model
from tests.processes import role, zenstep
from tests.working import until
from tests.worlds import envelope, modelled, steps_of, zone

EVENTS = 20_000
CLIENTS = 16
SECRET = "a secret of this test's own, long enough"
DAY = 86_400_000
EXACT_BELOW = 200  # documented: distinct users are exact below it, within a standard error of 1 % above


class Installation(NamedTuple):
    settings: dict[str, object]
    organisations: list[str]
    keys: list[str]
    flows: list[list[Flow]]
    user: str


@pytest.fixture
def installation(kafka_servers: str, postgres_url: str) -> Installation:
    settings: dict[str, object] = {
        "log_url": f"kafka://{kafka_servers}",
        "store_url": postgres_url,
        "topic_prefix": f"s{uuid.uuid4().hex}",
        "group": f"s{uuid.uuid4().hex}",
        "user_hash_secret": SECRET,
        "jwt_secret": SECRET,
    }
    zenstep(settings, "topics", "create")
    engine = open_engine(postgres_url)
    catalog = Catalog(engine)
    organisations = [catalog.create_organisation(name) for name in ("Acorn", "Birch")]
    rng = random.Random(3)
    flows = [flows_of(organisation, rng) for organisation in organisations]
    user = str(uuid.uuid4())
    for organisation, theirs in zip(organisations, flows, strict=True):
        catalog.add_member(organisation, user)
        for flow in theirs:
            catalog.import_flow(flow)
    keys = [catalog.create_key(organisation) for organisation in organisations]
    for organisation in organisations:
        catalog.set_limit(organisation, "events", MAX_LIMIT)  # hours of traffic in seconds
    engine.dispose()
    return Installation(settings, organisations, keys, flows, user)


async def send(base: str, requests: list[Request], keys: list[str]) -> int:
    """Events that a 202 accepted."""
    queue = iter(requests)
    accepted = 0

    async def client() -> None:
        nonlocal accepted
        async with httpx.AsyncClient(base_url=base, timeout=30) as http:
            for request in queue:
                path, headers = "/api/v1/events", {"Authorization": f"Bearer {keys[request.organisation]}"}
                if request.beacon:
                    path, headers = f"{path}?key={keys[request.organisation]}", {"Content-Type": "text/plain"}
                answer = await http.post(path, headers=headers, content=orjson.dumps({"events": request.events}))
                assert answer.status_code == 202, answer.text
                accepted += answer.json()["accepted"]

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return accepted


def as_envelope(installation: Installation, request: Request, received: int) -> Envelope:
    """What the model is told: users only need to be told apart."""
    events = [
        RecordEvent(
            id=e["id"],
            type=e["eventType"],
            flow=e["flowId"],
            step=e.get("stepId"),
            session=e["sessionId"],
            user=e.get("userId"),
            anon=e.get("anonymousId"),
            name=e.get("name"),
            time=e["timestamp"],
        )
        for e in request.events
    ]
    return envelope(installation.organisations[request.organisation], *events, received=received)


def consumed(engine: sa.Engine) -> int:
    return Counting(engine).ledger().get("consumed", 0)


def assert_same(found: Any, expected: Any, path: str = "") -> None:
    """Equal, but for distinct users above EXACT_BELOW, which come from sketches: within four standard errors."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), path
        for name in expected:
            assert_same(found[name], expected[name], f"{path}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for n, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{path}[{n}]")
    elif path.endswith("uniqueUsers") and expected >= EXACT_BELOW:
        assert abs(found - expected) <= 0.04 * expected, path
    else:
        assert found == expected, path


@pytest.mark.timeout(400)
def test_every_event_counts_once_though_the_worker_is_killed_half_way(
    installation: Installation, tmp_path: Path
) -> None:
    settings = installation.settings | {"batch_records": 50}
    now = time.time_ns() // 1_000_000
    requests = list(play(installation.flows, EVENTS, now, random.Random(5)))
    sent = sum(len(request.events) for request in requests)
    model = Model(steps_of([flow for theirs in installation.flows for flow in theirs]))
    for request in requests:
        model.take(as_envelope(installation, request, now))
    engine = open_engine(str(settings["store_url"]))
    with role("edge", settings, tmp_path) as edge, role("reader", settings, tmp_path) as reader:
        with role("worker", settings, tmp_path) as worker:
            half = len(requests) // 2
            assert asyncio.run(send(edge.base, requests[:half], installation.keys)) > 0
            until(lambda: consumed(engine) > 0)
            worker.kill()
            killed_at = consumed(engine)
        accepted = asyncio.run(send(edge.base, requests[half:], installation.keys))
        accepted += sum(len(request.events) for request in requests[:half])
        assert accepted == sent
        assert consumed(engine) == killed_at < sent, "nobody counts while the worker is dead"
        with role("worker", settings, tmp_path) as worker:
            until(lambda: consumed(engine) >= sent, 120)
            ledger = Counting(engine).ledger()
            assert ledger == {**model.outcomes, "consumed": sent}
            assert ledger["duplicate"] > 0 and ledger["rejected:unknown_flow"] > 0
            check_analytics(installation, reader.base, model, now)
            assert worker.terminate() == 0
        assert edge.terminate() == 0
        assert reader.terminate() == 0
    engine.dispose()


def check_analytics(installation: Installation, base: str, model: Model, now: int) -> None:
    token = session_token(SECRET, None, installation.user)
    start, end = now // DAY * DAY - 8 * DAY, now // DAY * DAY + DAY
    since, until_ = (datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in (start, end))
    views = itertools.cycle([("day", "UTC"), ("day", "Asia/Kolkata"), ("hour", "America/New_York")])
    for flow in (flow for theirs in installation.flows for flow in theirs):
        interval, timezone = next(views)
        answer = httpx.get(
            f"{base}/api/v1/flows/{flow.flow_id}/analytics",
            params={"from": since, "to": until_, "interval": interval, "timezone": timezone},
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        expected = model.analytics(flow.organisation, flow.flow_id, start, end, interval, zone(timezone))
        assert expected["totals"]["starts"] > 100
        assert_same(modelled(answer.json()), expected)
