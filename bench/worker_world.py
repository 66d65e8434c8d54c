"""What the worker's benchmarks run on: Kafka and PostgreSQL on one core, topics filled once, fresh databases."""

import os
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
import sqlalchemy as sa
from kafka import KafkaProducer

from backends.store.engine import open_engine
from bench.processes import pin
from bench.worker_events import Shape, catalogue, values
from schemas import tables as t
from tests.processes import zenstep
from tests.servers.kafka import LocalKafka
from tests.servers.postgres import LocalPostgres

SERVER_CORE, REST_CORE = 0, (os.cpu_count() or 1) - 1
EMPTY = Shape(events=0)


class World:
    """Kafka and PostgreSQL, and what is in them; where they are `apart`, not on the core of what is measured."""

    def __init__(self, folder: Path, apart: bool = True) -> None:
        folder.chmod(0o755)
        if apart:
            pin(os.getpid(), REST_CORE)  # the servers inherit it
        self.folder = folder
        for name in ("kafka", "postgres"):
            (folder / name).mkdir(mode=0o755)
        self.kafka = LocalKafka(folder / "kafka", heap="1g")
        self.postgres = LocalPostgres(folder / "postgres")
        self._topics: dict[Shape, str] = {}
        self._templates: dict[int, str] = {}

    def settings(self, shape: Shape, database: str) -> dict[str, object]:
        """Of roles on the topics of this shape and on this database."""
        return {
            "log_url": f"kafka://{self.kafka.servers}",
            "store_url": f"{self.postgres.url}/{database}",
            "topic_prefix": self.prefix(shape),
            "partitions": shape.partitions,
            "log_level": "warning",
        }

    def prefix(self, shape: Shape) -> str:
        """The prefix of topics that hold it, filled when first asked for."""
        if shape not in self._topics:
            prefix = f"b{uuid.uuid4().hex}"
            settings = {"log_url": f"kafka://{self.kafka.servers}", "partitions": shape.partitions}
            zenstep({**settings, "topic_prefix": prefix}, "topics", "create")
            self._fill(f"{prefix}.events", shape)
            self._topics[shape] = prefix
        return self._topics[shape]

    def database(self, organisations: int) -> str:
        """A fresh one with this release's tables and so many organisations with their flows."""
        if organisations not in self._templates:
            name = self._create(f"template_{organisations}")
            zenstep({"store_url": f"{self.postgres.url}/{name}"}, "migrate")
            _publish(f"{self.postgres.url}/{name}", organisations)
            self._templates[organisations] = name
        return self._create(f"run_{uuid.uuid4().hex}", self._templates[organisations])

    def drop(self, database: str) -> None:
        with self._admin() as connection:
            connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')

    def checkpoint(self) -> None:
        """Has all that was written on disk, so that who comes next does not pay for it."""
        with self._admin() as connection:
            connection.execute("CHECKPOINT")

    def close(self) -> None:
        self.kafka.close()
        self.postgres.close()

    def _create(self, name: str, template: str = "template0") -> str:
        with self._admin() as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def _admin(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(f"{self.postgres.url}/postgres", autocommit=True)

    def _fill(self, topic: str, shape: Shape) -> None:
        producer = KafkaProducer(
            bootstrap_servers=self.kafka.servers, acks="all", linger_ms=20, batch_size=256 * 1024, max_block_ms=60_000
        )
        for partition, value in values(shape, time.time_ns() // 1_000_000):
            producer.send(topic, value, partition=partition)
        producer.flush(timeout=120)
        producer.close()


@contextmanager
def world(apart: bool = True) -> Iterator[World]:
    """Ended with the block; SIGTERM ends the block as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="zenstep-bench-", ignore_cleanup_errors=True) as folder:
        made = World(Path(folder), apart)
        try:
            yield made
        finally:
            made.close()


def _publish(url: str, organisations: int) -> None:
    """As `zenstep org create` and `flow import` would, in a few statements."""
    flows = catalogue(organisations)
    owners = [{"organisation_id": theirs[0].organisation, "name": "Bench", "created_at": 1} for theirs in flows]
    rows: list[dict[str, object]] = [
        {"organisation_id": flow.organisation, "flow_id": flow.flow_id, "name": flow.name, "type": flow.type}
        | {"published_at": flow.published_at, "targeting": {}, "updated_at": 1}
        for theirs in flows
        for flow in theirs
    ]
    steps = [
        {"organisation_id": flow.organisation, "flow_id": flow.flow_id, **msgspec.to_builtins(step)}
        for theirs in flows
        for flow in theirs
        for step in flow.steps
    ]
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.insert(t.organisations), owners)
        connection.execute(sa.insert(t.flows), rows)
        connection.execute(sa.insert(t.steps), steps)
    engine.dispose()
