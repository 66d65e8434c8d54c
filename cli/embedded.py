"""The whole system in one process on the embedded default: edge, reader and worker over SQLite files in one folder."""

import json
import logging
import secrets
import threading
from pathlib import Path

from starlette.applications import Starlette

from backends.log import open_admin
from backends.store.engine import open_engine, ping
from backends.store.migrate import migrate
from ingest.app import not_found_route
from ingest.main import EdgeService
from readers.main import ReaderService
from schemas.topics import Topics
from service.admin import AdminServer
from service.serve import serve
from service.settings import Settings
from workers import main as worker_main

log = logging.getLogger(__name__)


def settings_in(folder: Path, port: int, admin_port: int) -> Settings:
    """Settings of a system whose files and secrets are all in this folder, made on first use."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "secrets.json"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(json.dumps({"user_hash_secret": secrets.token_hex(16), "jwt_secret": secrets.token_hex(32)}))
    return Settings(
        log_url=f"sqlite:///{folder}/log.db",
        store_url=f"sqlite:///{folder}/store.db",
        edge_port=port,
        edge_admin_port=admin_port,
        jwt_algorithm="HS256",
        **json.loads(file.read_text()),
    )


def prepare(settings: Settings) -> None:
    """Makes tables and topics."""
    engine = open_engine(settings.store_url)
    migrate(engine)
    engine.dispose()
    admin = open_admin(settings.log_url)
    for topic in Topics(settings.topic_prefix).all():
        admin.create_topic(topic, settings.partitions, settings.replication)
    admin.close()


def run(settings: Settings) -> None:
    """Serves every route on the edge's port until SIGTERM or Ctrl-C; the worker finishes its batch first."""
    engine = open_engine(settings.store_url)
    edge = EdgeService(settings, engine)
    reader = ReaderService(settings, engine)
    worker = worker_main.create(settings, engine)
    checks = edge.checks() | {"worker": lambda: worker.problem, "store": lambda: ping(engine)}
    admin = AdminServer(settings.admin_host, settings.edge_admin_port, checks)
    thread = threading.Thread(target=worker.run, name="worker")
    thread.start()
    app = Starlette(routes=[*edge.routes(), *reader.routes(), not_found_route()], lifespan=edge.lifespan)
    try:
        serve(app, settings.edge_host, settings.edge_port, admin)
    finally:
        worker.stop()
        thread.join()
        admin.close()
        engine.dispose()
