"""The whole system in one process on the embedded default: edge, reader and worker over SQLite files in one folder."""

import json
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from backends.log import open_admin
from backends.store.engine import open_engine, ping
from backends.store.migrate import migrate
from ingest.main import EdgeService
from readers.main import ReaderService
from schemas.topics import Topics
from service.admin import AdminServer
from service.listen import listen
from service.serve import serve
from service.settings import Settings, load
from workers import main as worker_main


def settings_in(folder: Path, port: int, admin_port: int) -> Settings:
    """Settings of a system whose files and secrets are all in this folder, made on first use. Raises SettingsError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = {"user_hash_secret": secrets.token_hex(16), "jwt_secret": secrets.token_hex(32)}
    return load(
        log_url=f"sqlite:///{folder}/log.db",
        store_url=f"sqlite:///{folder}/store.db",
        edge_port=port,
        edge_admin_port=admin_port,
        jwt_algorithm="HS256",
        **kept(folder / "secrets.json", lambda: fresh),
    )


def kept(file: Path, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What the file holds; made on first use, whole or not at all, for its owner's eyes alone."""
    if not file.exists():
        draft = file.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(make()))
        draft.rename(file)
    found: dict[str, str] = json.loads(file.read_text())
    return found


def prepare(settings: Settings) -> None:
    """Makes tables and topics."""
    engine = open_engine(settings.store_url)
    migrate(engine)
    engine.dispose()
    admin = open_admin(settings.log_url)
    for topic in Topics(settings.topic_prefix).all():
        admin.create_topic(topic, settings.partitions, settings.replication)
    admin.close()


def run(settings: Settings, started: Callable[[], None]) -> None:
    """Serves every route on the edge's port until SIGTERM or Ctrl-C; the worker finishes its batch first.

    `started` is called when the port is taken. Raises SettingsError where it cannot be.
    """
    engine = open_engine(settings.store_url)
    edge = EdgeService(settings, engine)
    reader = ReaderService(settings, engine)
    worker = worker_main.create(settings, engine)
    thread = threading.Thread(target=worker_main.work, args=(worker,), name="worker")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with edge.lifespan(app), reader.lifespan(app):
            started()
            yield

    def worker_problem() -> str | None:
        return worker.problem or (None if thread.is_alive() else "has ended")

    checks = edge.checks() | {"worker": worker_problem, "store": lambda: ping(engine)}
    admin = AdminServer(settings.admin_host, settings.edge_admin_port, checks)
    app = edge.app(reader.routes(), lifespan)
    thread.start()
    try:
        serve(app, listen(settings.edge_host, settings.edge_port), admin)
    finally:
        worker.stop()
        thread.join()
        reader.close()
        admin.close()
        engine.dispose()
