"""The reader as a process."""

import logging
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from backends.store.catalog import Catalog
from backends.store.engine import open_engine, ping
from backends.store.queries import Queries
from readers import tokens
from readers.app import Reader, not_found
from schemas.topics import Topics
from service.admin import AdminServer
from service.serve import serve
from service.settings import Settings

log = logging.getLogger(__name__)

THREADS = 5


class ReaderService:
    """The reader's parts, put together. Raises SettingsError."""

    def __init__(self, settings: Settings, engine: sa.Engine) -> None:
        verifier = tokens.from_settings(settings)
        topic = Topics(settings.topic_prefix).events
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="reader")
        self._reader = Reader(Catalog(engine), Queries(engine), verifier, topic, self._threads)

    def routes(self) -> list[BaseRoute]:
        return self._reader.routes()

    def app(self) -> Starlette:
        """The routes alone, for a process that does nothing else."""
        app = Starlette(routes=self.routes(), exception_handlers={404: not_found})
        app.router.redirect_slashes = False  # a path that is not documented is not found
        return app

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def run(settings: Settings) -> None:
    """Until SIGTERM. Raises SettingsError."""
    engine = open_engine(settings.store_url, pool_size=THREADS)
    reader = ReaderService(settings, engine)
    admin = AdminServer(settings.admin_host, settings.reader_admin_port, {"store": lambda: ping(engine)})
    log.info("reader listens", extra={"host": settings.reader_host, "port": settings.reader_port, "admin": admin.port})
    serve(reader.app(), settings.reader_host, settings.reader_port, admin)
    reader.close()
    admin.close()
    engine.dispose()
