"""One installation: Kafka, PostgreSQL, two edges and two workers, each link between them through a proxy."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa

from backends.store.engine import open_engine
from chaos import plan
from chaos.ports import settled_port
from chaos.proxy import Loop, Proxy
from chaos.roles import Edge, Role
from chaos.servers import KafkaServer, PostgresServer
from schemas.topics import Topics
from tests.processes import zenstep

PREFIX = "chaos"
PARTITIONS = 4
READY_SECONDS = 120.0
POLL_SECONDS = 0.1


class Late(Exception):
    """Something did not come about in time; the message says what."""


def wait_until(what: str, done: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
    """Raises Late."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise Late(f"{what} took over {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


class Installation:
    """Everything is started when this returns. `folder` holds data and logs; `sabotage` is given to every role."""

    def __init__(self, folder: Path, sabotage: str | None = None) -> None:
        self.folder = folder
        self._sabotage = sabotage
        self._closing = ExitStack()
        self.links: dict[str, Proxy] = {}
        self.roles: dict[str, Role] = {}
        self.storm: list[Role] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        loop = Loop()
        self._closing.callback(loop.close)
        listeners = {link: settled_port() for link in plan.LINKS if link.endswith(">kafka")}
        told = {link: settled_port() for link in plan.LINKS}
        for name in plan.SERVERS:
            (self.folder / name).mkdir()
        self.kafka = KafkaServer(self.folder / "kafka", {port: told[link] for link, port in listeners.items()})
        self._closing.callback(self.kafka.close)
        self.postgres = PostgresServer(self.folder / "postgres")
        self._closing.callback(self.postgres.close)
        for link in plan.LINKS:
            target = listeners.get(link, self.postgres.postgres.port)
            self.links[link] = Proxy(loop, told[link], target)
            self._closing.callback(self.links[link].close)
        self.direct = self._settings(f"kafka://{self.kafka.kafka.servers}", self.postgres.url)
        zenstep(self.direct, "migrate")
        zenstep(self.direct, "topics", "create")
        self.engine = open_engine(self.postgres.url)
        self._closing.callback(self.engine.dispose)
        for name in (*plan.EDGES, *plan.WORKERS):
            kind = Edge if name in plan.EDGES else Role
            self.roles[name] = kind(name, self._linked(name), self.folder, self._sabotage)
            self._closing.callback(self.roles[name].stop)
        self.start_roles()

    @property
    def topics(self) -> Topics:
        return Topics(PREFIX)

    @property
    def edges(self) -> list[Edge]:
        return [role for role in self.roles.values() if isinstance(role, Edge)]

    def edge(self, name: str) -> Edge:
        """Raises KeyError where it is no edge's name."""
        return {edge.name: edge for edge in self.edges}[name]

    def server(self, name: str) -> KafkaServer | PostgresServer:
        return self.kafka if name == "kafka" else self.postgres

    def versions(self) -> dict[str, str]:
        """Of the servers, and what the disk of a spool is."""
        return {
            "kafka": self.kafka.kafka.how,
            "postgres": self.postgres.postgres.how,
            "spool": self.edges[0].disk.how,
        }

    def start_roles(self) -> None:
        """Starts those that are dead."""
        for role in self.roles.values():
            role.start()

    def wait_ready(self) -> None:
        """Raises Late."""
        for role in self.roles.values():
            wait_until(f"{role.name} to be ready", role.ready)

    def heal(self) -> None:
        """Takes back whatever a fault may have left."""
        for proxy in self.links.values():
            if proxy.mode != "pass":
                proxy.set("pass")
        for server in (self.kafka, self.postgres):
            server.thaw()
            server.start()
        for edge in self.edges:
            edge.disk.make_room(edge.pid)
        for role in self.roles.values():
            role.thaw()
        self.end_storm()
        self.start_roles()

    def join_storm(self) -> Role:
        """One more worker, for a while; it reaches the servers without a proxy."""
        worker = Role(f"worker-{len(plan.WORKERS) + 1 + len(self.storm)}", self.direct, self.folder, self._sabotage)
        self.storm.append(worker)
        worker.start()
        return worker

    def end_storm(self) -> None:
        for worker in self.storm:
            worker.stop()
        self.storm.clear()

    def ended_by_themselves(self) -> list[str]:
        """Roles that nobody killed and that are gone all the same."""
        codes = {role.name: role.ended_by_itself() for role in self.roles.values()}
        return [f"{name} ended by itself with code {code}" for name, code in codes.items() if code is not None]

    def close(self) -> None:
        """Ends everything, the last first."""
        self.end_storm()
        self._closing.close()

    def _linked(self, name: str) -> dict[str, object]:
        kafka, postgres = (self.links[f"{name}>{server}"].port for server in plan.SERVERS)
        return self._settings(f"kafka://127.0.0.1:{kafka}", f"postgresql://postgres@127.0.0.1:{postgres}/postgres")

    def _settings(self, log_url: str, store_url: str) -> dict[str, object]:
        return {
            "log_url": log_url,
            "store_url": store_url,
            "topic_prefix": PREFIX,
            "partitions": PARTITIONS,
            "group": PREFIX,
            "user_hash_secret": "a secret of the crash harness",
            "batch_records": 200,
        }


def stored_offsets(engine: sa.Engine) -> dict[tuple[str, int], int]:
    """Where the workers stand, by topic and partition."""
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT topic, partition, next_offset FROM offsets"))
        return {(row.topic, row.partition): row.next_offset for row in rows}
