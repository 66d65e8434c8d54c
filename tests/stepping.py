"""An edge and a worker on one log and store, and a flow of three steps for the first of two organisations."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import orjson
import sqlalchemy as sa

from backends.store.catalog import Catalog, Flow, Step
from backends.store.counting import Counting
from backends.store.engine import open_engine
from tests.edges import World, bearer, edge, make_world
from tests.working import until, working

API = "/api/v1"
NOT_FOUND = b'{"error":"Not found"}'


class Stepping(NamedTuple):
    world: World
    client: httpx.Client
    engine: sa.Engine
    flow: Flow
    foreign: Flow

    @property
    def steps(self) -> list[str]:
        return [step.step_id for step in self.flow.steps]

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.engine)

    def get(self, path: str, key: int = 0, headers: dict[str, str] | None = None, **query: str) -> httpx.Response:
        given = bearer(self.world.keys[key]) | (headers or {})
        return self.client.get(API + path, params=query or None, headers=given)

    def post(self, path: str, body: Any = None, key: int = 0, headers: dict[str, str] | None = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        given = bearer(self.world.keys[key]) | {"Content-Type": "application/json"} | (headers or {})
        return self.client.post(API + path, content=content, headers=given)

    def taken(self, path: str, body: Any, key: int = 0) -> None:
        answer = self.post(path, body, key)
        assert (answer.status_code, answer.content) == (202, b'{"accepted":1}')

    def ledger(self) -> dict[str, int]:
        return Counting(self.engine).ledger()

    def counted(self, writes: int) -> None:
        """Waits until the worker has accounted for so many."""
        until(lambda: self.ledger().get("consumed", 0) >= writes)

    def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key)).mappings()]


def make_flow(organisation: str, name: str, published: bool = True) -> Flow:
    steps = [Step(str(uuid.uuid4()), n, f"{name} {n}", {"title": f"Step {n} é"}) for n in range(3)]
    targeting = {"url": {"contains": "/team"}}
    at = 1_774_785_600_000 if published else None
    return Flow(organisation, str(uuid.uuid4()), name, "checklist", steps, at, targeting)


@contextmanager
def stepping(log_url: str, store_url: str, worker: bool = True) -> Iterator[Stepping]:
    world = make_world(log_url, store_url)
    engine = open_engine(store_url)
    flow, foreign = (make_flow(organisation, "Set up") for organisation in world.organisations)
    Catalog(engine).import_flow(flow, foreign)
    for organisation in world.organisations:
        for bucket in ("flows", "fingerprint", "health", "heartbeat", "status"):
            Catalog(engine).set_limit(organisation, bucket, 10_000)
    with edge(world) as client:
        running = Stepping(world, client, engine, flow, foreign)
        if worker:
            with working(engine, log_url, world.topics.all(), f"g-{world.topics.prefix}"):
                yield running
        else:
            yield running
    engine.dispose()
