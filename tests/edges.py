"""An edge over HTTP on a log and a store, with two organisations that have a key each, and what it put into the log."""

import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson

from backends.log import Record, open_admin, open_consumer
from backends.store.catalog import Catalog
from backends.store.engine import open_engine
from ingest.main import EdgeService
from schemas import records
from schemas.topics import Topics
from service.settings import Settings
from tests.running import serving
from tests.stores import make_store
from tests.working import until

PARTITIONS = 4
SECRET = "a secret of the edge's tests"
EVENTS, HEARTBEAT = "/api/v1/events", "/api/v1/heartbeat"
UNAUTHORIZED = b'{"error":"Unauthorized"}'
FLOW = "7b9f1e4e-41d5-4d44-8c7a-6f6e6e1b2a33"


class World(NamedTuple):
    """A log and a store before an edge runs on them. Each organisation has a key."""

    settings: Settings
    organisations: list[str]
    keys: list[str]

    @property
    def topics(self) -> Topics:
        return Topics(self.settings.topic_prefix)

    def catalog(self) -> Catalog:
        return Catalog(open_engine(self.settings.store_url))

    def environment(self) -> dict[str, object]:
        """The settings as tests/processes.py gives them to a real process."""
        given = {name: value for name, value in vars(self.settings).items() if value != getattr(Settings, name)}
        return given | {"user_hash_secret": SECRET}


def make_world(log_url: str, store_url: str, topics: bool = True, **settings: object) -> World:
    """`topics` may be left out where the log is away."""
    make_store(store_url)
    engine = open_engine(store_url)
    catalog = Catalog(engine)
    organisations = [catalog.create_organisation(name) for name in ("Acorn", "Birch")]
    keys = [catalog.create_key(organisation, "production") for organisation in organisations]
    engine.dispose()
    given = {"topic_prefix": f"t{uuid.uuid4().hex}", "user_hash_secret": SECRET, **settings}
    world = World(Settings(log_url=log_url, store_url=store_url, **given), organisations, keys)  # type: ignore[arg-type]
    if topics:
        make_topics(world)
    return world


def make_topics(world: World) -> None:
    with closing(open_admin(world.settings.log_url)) as admin:
        for topic in world.topics.all():
            admin.create_topic(topic, PARTITIONS, 1)


@contextmanager
def edge(world: World, connected: bool = True) -> Iterator[httpx.Client]:
    """A client of a running edge, which has reached its log where `connected`."""
    engine = open_engine(world.settings.store_url)
    service = EdgeService(world.settings, engine)
    with serving(service.app()) as base, httpx.Client(base_url=base, timeout=30) as client:
        if connected:
            until(lambda: service.checks()["log"]() is None)
        yield client
    engine.dispose()


class Running(NamedTuple):
    world: World
    client: httpx.Client

    def post(self, body: Any, key: int = 0, headers: dict[str, str] | None = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        given = bearer(self.world.keys[key]) | {"Content-Type": "application/json"} | (headers or {})
        return self.client.post(EVENTS, content=content, headers=given)


def view(**fields: Any) -> dict[str, Any]:
    return {"eventType": "view", "flowId": FLOW, "sessionId": "s-1", **fields}


def accepted(answer: httpx.Response, count: int) -> None:
    assert (answer.status_code, answer.content) == (202, b'{"accepted":%d}' % count)
    assert answer.headers["content-type"] == "application/json"


def unavailable(answer: httpx.Response) -> bool:
    """A 503 is always the documented one."""
    if answer.status_code != 503:
        return False
    assert answer.content == b'{"error":"Service unavailable"}'
    assert answer.headers["retry-after"] == "5"
    return True


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Somebody else holds the write lock, as a slow disk would hold up every append."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def read_records(world: World, topic: str) -> list[Record]:
    """Everything that is in the topic now."""
    found: list[Record] = []
    consumer = open_consumer(
        world.settings.log_url, uuid.uuid4().hex, [topic], lambda tps: dict.fromkeys(tps, 0), lambda tps: None
    )
    with closing(consumer):
        deadline = time.monotonic() + 60
        while True:
            found += consumer.poll(0.1, 1000)
            held = sorted(consumer.assignment())
            if len(held) == PARTITIONS and len(found) == sum(consumer.end_offsets(held).values()):
                return found
            assert time.monotonic() < deadline, "the log cannot be read"


def read_lines(world: World, topic: str) -> list[records.Line | records.Refused]:
    """Every line in the topic now, as a worker reads it."""
    values = [record.value for record in read_records(world, topic)]
    return [records.decode(line) for value in values for _, line in records.lines(value)]


def read_envelopes(world: World) -> list[records.Envelope]:
    return [line for line in read_lines(world, world.topics.events) if isinstance(line, records.Envelope)]


def read_heartbeats(world: World) -> list[records.Heartbeat]:
    return [line for line in read_lines(world, world.topics.heartbeats) if isinstance(line, records.Heartbeat)]


def read_refused(world: World) -> list[records.Refused]:
    return [line for line in read_lines(world, world.topics.refused) if isinstance(line, records.Refused)]
