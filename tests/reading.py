"""The reader as its users meet it: over HTTP, on a store with two organisations whose events the worker has counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import sqlalchemy as sa

from backends.store.catalog import Catalog, Flow
from backends.store.engine import open_engine
from readers.main import ReaderService
from schemas.topics import Topics
from service.settings import Settings
from tests.issuer import ISSUER, SECRET, USER, secret_token
from tests.running import serving
from tests.worlds import NOW, Partitions, apply, envelope, event, make_flows

MINUTE = 60_000
DAY = 24 * 60 * MINUTE


class World(NamedTuple):
    """USER's organisation with a flow of three steps, one without any and a key; and a flow of another organisation."""

    engine: sa.Engine
    organisation: str
    flow: Flow
    empty: Flow
    key: str
    others: str
    theirs: Flow

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.engine)


def make_world(engine: sa.Engine) -> World:
    organisation, (flow, empty) = make_flows(engine, [3, 0])
    others, (theirs,) = make_flows(engine, [2])
    catalog = Catalog(engine)
    catalog.add_member(organisation, USER)
    apply(engine, Partitions(Topics().events).record(*_traffic(flow), *_traffic(theirs)))
    return World(engine, organisation, flow, empty, catalog.create_key(organisation), others, theirs)


def _traffic(flow: Flow) -> Iterator[Any]:
    """Over three days, ada goes through to the end in a minute, bob and an anonymous visitor leave on the way."""
    first, *_, last = [step.step_id for step in flow.steps]
    for day, who in enumerate([{"user": "a" * 64}, {"user": "b" * 64}, {"anon": "visitor"}]):
        at = NOW - (2 - day) * DAY
        own: dict[str, Any] = {"flow": flow.flow_id, "session": f"session {day}", **who}
        events = [event(time=at, **own), event(time=at + 1000, step=first, **own)]
        if day == 0:
            events += [event("view", time=at + 30_000, step=last, **own), event("complete", time=at + MINUTE, **own)]
        if day == 1:
            events += [event("dismiss", time=at + 5000, step=first, **own)]
        if day == 2:
            events += [event("skip", time=at + 5000, step=first, **own), event("custom", name="invited", **own)]
        yield envelope(flow.organisation, *events, received=at + 2 * MINUTE if day < 2 else NOW)


RANGE = {"from": "2026-03-27", "to": "2026-03-31"}


def path(flow: Flow | str, export: bool = False) -> str:
    flow_id = flow if isinstance(flow, str) else flow.flow_id
    return f"/api/v1/flows/{flow_id}/analytics{'/export.csv' if export else ''}"


def bearer(credential: str | None = None, **claims: Any) -> dict[str, str]:
    """The header with this credential, or with a session token of USER with these claims."""
    return {"Authorization": f"Bearer {credential or secret_token(**claims)}"}


@contextmanager
def reading(store_url: str, **changes: Any) -> Iterator[httpx.Client]:
    """A client of a reader on this store. HS256 unless told otherwise."""
    settings = Settings(store_url=store_url, **({"jwt_secret": SECRET, "jwt_issuer": ISSUER} | changes))
    engine = open_engine(store_url)
    service = ReaderService(settings, engine)
    try:
        with serving(service.app()) as base, httpx.Client(base_url=base, timeout=30) as client:
            yield client
    finally:
        service.close()
        engine.dispose()
