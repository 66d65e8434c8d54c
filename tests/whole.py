"""The whole system in this process: edge and reader on one port, a worker behind them, two organisations with flows."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from starlette.types import ASGIApp

from backends.store.catalog import Catalog, Flow, Step
from backends.store.engine import open_engine
from ingest.main import EdgeService
from readers.main import ReaderService
from schemas.limits import LIMITS
from tests.edges import make_world
from tests.issuer import ISSUER, SECRET, USER, secret_token
from tests.running import serving
from tests.working import until
from tests.worlds import new_id
from workers import main as worker_main


class Whole(NamedTuple):
    """USER is a member of the first organisation. Each has a key and a published flow of two steps."""

    base: str
    client: httpx.Client
    catalog: Catalog
    organisations: list[str]
    keys: list[str]
    flows: list[Flow]

    def analytics(self, flow: Flow) -> dict[str, object]:
        """As a member reads it now."""
        headers = {"Authorization": f"Bearer {secret_token(sub=USER)}"}
        answer = self.client.get(f"/api/v1/flows/{flow.flow_id}/analytics", headers=headers)
        assert answer.status_code == 200, answer.content
        document: dict[str, object] = answer.json()
        return document


@contextmanager
def whole_system(
    folder: Path, limit: int | None = None, around: Callable[[ASGIApp], ASGIApp] = lambda app: app
) -> Iterator[Whole]:
    """`limit` raises every limit of the first organisation; `around` wraps what is served."""
    world = make_world(
        f"sqlite:///{folder}/log.db", f"sqlite:///{folder}/store.db", jwt_secret=SECRET, jwt_issuer=ISSUER
    )
    engine = open_engine(world.settings.store_url)
    catalog = Catalog(engine)
    flows = []
    for organisation in world.organisations:
        steps = [Step(new_id(), position, f"Step {position}") for position in range(2)]
        flows.append(Flow(organisation, new_id(), "Welcome tour", "tour", steps, 1))
        catalog.import_flow(flows[-1])
    catalog.add_member(world.organisations[0], USER)
    for bucket in LIMITS if limit else ():
        catalog.set_limit(world.organisations[0], bucket, limit)
    edge, reader = EdgeService(world.settings, engine), ReaderService(world.settings, engine)
    worker = worker_main.create(world.settings, engine)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with edge.lifespan(app), reader.lifespan(app):
            yield

    thread = threading.Thread(target=worker.run, name="worker")
    thread.start()
    try:
        with (
            serving(around(edge.app(reader.routes(), lifespan))) as base,
            httpx.Client(base_url=base, timeout=30) as client,
        ):
            until(lambda: edge.checks()["log"]() is None)
            yield Whole(base, client, catalog, world.organisations, world.keys, flows)
    finally:
        worker.stop()
        thread.join()
        reader.close()
        engine.dispose()
