"""The edge as a process: opens the log and the store, keeps trying while they are away, serves, drains."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from backends.limits import Limiter, open_limits
from backends.store.catalog import Catalog, CatalogError
from backends.store.engine import open_engine, ping
from backends.store.keys import Key
from backends.store.small import SmallReads
from ingest.app import Edge, not_found_route
from ingest.decode import UserHasher
from ingest.exact import Application
from ingest.flows import FlowCache, Flows, written_out
from ingest.gate import Gate
from ingest.keys import KeyCache
from ingest.outbound import Outbound
from ingest.processes import check_spools, settings_of
from ingest.reads import StoreReads
from ingest.refused import Refused
from service import metrics
from service.admin import AdminServer, Check, NeededAtStart
from service.clients import Clients, networks
from service.listen import listen
from service.processes import CANNOT_START, Parent
from service.serve import serve
from service.settings import Settings, SettingsError

log = logging.getLogger(__name__)


class EdgeService:
    """The edge's parts, put together. `lifespan` runs them around the serving of `routes`."""

    def __init__(self, settings: Settings, engine: sa.Engine) -> None:
        hasher = UserHasher(settings.require("user_hash_secret"))
        self._engine = engine
        self._catalog = Catalog(engine)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="edge-store")
        self._reading = ThreadPoolExecutor(4, thread_name_prefix="edge-reads")
        self._outbound = Outbound(settings, engine)
        self._refused = Refused(self._outbound.refused, hasher)
        self._limiter = Limiter(open_limits(settings.limits_url, metrics.limits_away.inc))
        clients = Clients(settings.require("user_hash_secret"), networks(settings.trusted_proxies))
        gate = Gate(KeyCache(self._find_keys), self._limiter, clients)
        flows = FlowCache(self._find_flows)
        events, small = self._outbound.events, self._outbound.small
        edge = Edge(gate, hasher, events, small, self._refused, flows, SmallReads(engine), StoreReads(self._reading))
        self._routes = edge.routes()
        self._not_found = not_found_route(gate)

    def app(self, others: Sequence[BaseRoute] = (), lifespan: Lifespan[Any] | None = None) -> Starlette:
        """The edge's routes, and others' that the same process serves; `lifespan` then runs this one's in it."""
        return Application([*self._routes, *others, self._not_found], lifespan or self.lifespan)

    def checks(self) -> dict[str, Check]:
        """For /readyz. Without the store known keys go on, so that an edge which has had it stays ready."""
        return {**self._outbound.checks(), "store": NeededAtStart(partial(ping, self._engine))}

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        self._outbound.start()
        try:
            yield
        finally:
            await self._refused.close()
            await self._outbound.close()
            await self._limiter.close()
            for threads in (self._threads, self._reading):
                threads.shutdown(wait=False, cancel_futures=True)

    async def _find_keys(self, digests: list[str]) -> dict[str, Key]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._catalog.find_keys, digests)

    async def _find_flows(self, organisations: list[str]) -> dict[str, Flows]:
        def found() -> dict[str, Flows]:
            flows = {}
            for organisation in organisations:
                with suppress(CatalogError):  # one that is no more
                    flows[organisation] = written_out(self._catalog.flows_of(organisation))
            return flows

        return await asyncio.get_running_loop().run_in_executor(self._threads, found)


def run(settings: Settings, processes: int = 1) -> None:
    """Until SIGTERM. Raises SettingsError.

    With more than one process this one serves nothing and raises SystemExit at its end; each child is a whole edge.
    """
    check_spools(settings, processes)
    listener = listen(settings.edge_host, settings.edge_port)
    if processes == 1:
        _run(settings, listener)
        return
    parent = Parent(processes)
    process = parent.fork()
    if process is None:
        listener.close()  # nobody is to wait in it while children end
        parent.end()
    try:
        _run(settings_of(settings, process), listener)
    except (SettingsError, ValueError) as error:
        log.error("process cannot start", extra={"child": process, "problem": str(error)})
        raise SystemExit(CANNOT_START) from None


def _run(settings: Settings, listener: socket.socket) -> None:
    engine = open_engine(settings.store_url, pool_size=8)  # as many as the edge has threads for it
    edge = EdgeService(settings, engine)
    admin = AdminServer(settings.admin_host, settings.edge_admin_port, edge.checks())
    host, port = listener.getsockname()[:2]
    log.info("edge starts", extra={"host": host, "port": port, "admin": admin.port})
    serve(edge.app(), listener, admin)
    admin.close()
    engine.dispose()
