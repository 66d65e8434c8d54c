"""What the edges run on: Kafka, PostgreSQL and Redis on the driver's core, organisations with keys and high limits."""

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import click
import psycopg
import sqlalchemy as sa

from backends.log import open_admin
from backends.store.engine import open_engine
from backends.store.migrate import migrate
from bench.load_driver import Driver
from bench.processes import pin
from schemas import tables as t
from schemas.ids import key_digest
from schemas.limits import MAX_LIMIT
from schemas.topics import Topics
from tests.servers.kafka import LocalKafka
from tests.servers.postgres import LocalPostgres
from tests.servers.redis import LocalRedis

PARTITIONS = 8
SERVER_CORE, DRIVER_CORE = 0, 1
SECRET = "a secret of the benchmark's"


class World:
    """`organisations` by key; the first keys are those of runs with few organisations."""

    def __init__(self, folder: Path, kafka: str, store_url: str, redis_url: str, organisations: dict[str, str]) -> None:
        self.folder = folder
        self.kafka = kafka
        self.store_url = store_url
        self.redis_url = redis_url
        self.prefix = f"b{uuid.uuid4().hex}"
        self.organisations_file = folder / "organisations.json"
        self.organisations_file.write_text(json.dumps(organisations))
        with closing(open_admin(f"kafka://{kafka}")) as admin:
            for topic in Topics(self.prefix).all():
                admin.create_topic(topic, PARTITIONS, 1)
        self.driver = Driver(list(organisations), folder)


@contextmanager
def world(folder: Path, organisations: int) -> Iterator[World]:
    """Servers of its own, on one core with the caller and the driver, until the end of the block."""
    if (os.cpu_count() or 1) < 2:
        raise click.ClickException("this needs two cores: one for the server, one for all else")
    pin(os.getpid(), DRIVER_CORE)  # what is started now inherits it
    folder.chmod(0o755)
    homes = {name: folder / name for name in ("kafka", "postgres", "redis")}
    for home in homes.values():
        home.mkdir()
    with ExitStack() as stack:
        kafka = stack.enter_context(closing(LocalKafka(homes["kafka"])))
        postgres = stack.enter_context(closing(LocalPostgres(homes["postgres"])))
        redis = stack.enter_context(closing(LocalRedis(homes["redis"])))
        with psycopg.connect(f"{postgres.url}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE bench")
        store_url = f"{postgres.url}/bench"
        made = World(folder, kafka.servers, store_url, redis.url, _organisations(store_url, organisations))
        stack.callback(made.driver.close)
        yield made


def _organisations(store_url: str, number: int) -> dict[str, str]:
    """Organisations by key, written in three statements: one at a time would take a minute."""
    engine = open_engine(store_url)
    migrate(engine)
    now = int(time.time() * 1000)
    made = {uuid.uuid4().hex: str(uuid.uuid4()) for _ in range(number)}
    with engine.begin() as connection:
        for table, rows in _rows(made, now).items():
            connection.execute(table.insert(), rows)
        connection.execute(sa.text("ANALYZE"))
    engine.dispose()
    return made


def _rows(made: dict[str, str], now: int) -> dict[sa.Table, list[dict[str, object]]]:
    ours = enumerate(made.items())
    rows: dict[sa.Table, list[dict[str, object]]] = {t.organisations: [], t.snippet_keys: [], t.organisation_limits: []}
    for number, (key, organisation) in ours:
        own = {"organisation_id": organisation}
        rows[t.organisations].append({**own, "name": f"Customer {number}", "created_at": now})
        rows[t.snippet_keys].append(
            {**own, "key_digest": key_digest(key), "hint": key[-4:], "environment": "production", "created_at": now}
        )
        rows[t.organisation_limits].append({**own, "bucket": "events", "per_minute": MAX_LIMIT})
    return rows
