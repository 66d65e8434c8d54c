"""The reader as a process."""

import logging
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from backends.limits import Limiter, open_limits
from backends.store.catalog import Catalog
from backends.store.engine import open_engine, ping
from backends.store.queries import Queries
from readers import tokens
from readers.app import Reader
from readers.cors import Cors
from readers.endpoint import Gate
from schemas.topics import Topics
from service import metrics
from service.admin import AdminServer
from service.clients import Clients, networks
from service.listen import listen
from service.serve import serve
from service.settings import Settings
from service.values import split

log = logging.getLogger(__name__)

THREADS = 5


class ReaderService:
    """The reader's parts, put together. Raises SettingsError."""

    def __init__(self, settings: Settings, engine: sa.Engine) -> None:
        verifier = tokens.from_settings(settings)
        topic = Topics(settings.topic_prefix).events
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="reader")
        self._reader = Reader(Catalog(engine), Queries(engine), verifier, topic, self._threads)
        self._limiter = Limiter(open_limits(settings.limits_url, metrics.limits_away.inc))
        self._gate = Gate(self._limiter, Clients(_secret(settings), networks(settings.trusted_proxies)))
        self._cors = Cors(split(settings.dashboard_origins))

    def routes(self) -> list[BaseRoute]:
        """To be served within `lifespan`."""
        return self._reader.routes(self._gate, self._cors)

    def app(self) -> Starlette:
        """The routes alone, for a process that does nothing else."""
        not_found = self._reader.not_found_route(self._gate, self._cors)
        return Starlette(routes=[*self.routes(), not_found], lifespan=self.lifespan)

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._limiter.close()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _secret(settings: Settings) -> str:
    """What addresses of clients are digested with: the edge's, so that a client is the same to all, where it is set."""
    secret = settings.user_hash_secret or settings.jwt_secret
    return secret or secrets.token_hex(32)


def run(settings: Settings) -> None:
    """Until SIGTERM. Raises SettingsError."""
    engine = open_engine(settings.store_url, pool_size=THREADS)
    reader = ReaderService(settings, engine)
    admin = AdminServer(settings.admin_host, settings.reader_admin_port, {"store": lambda: ping(engine)})
    log.info("reader listens", extra={"host": settings.reader_host, "port": settings.reader_port, "admin": admin.port})
    serve(reader.app(), listen(settings.reader_host, settings.reader_port), admin)
    reader.close()
    admin.close()
    engine.dispose()
