"""Fixtures over the servers: `log_url` and `store_url` come in every kind, so that each suite runs on all of them."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from backends.store.engine import open_engine
from backends.store.migrate import migrate
from tests.servers.find import Servers
from tests.servers.kafka import LocalKafka

_servers = pytest.StashKey[Servers]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_servers] = Servers()


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_servers].close(failed=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    terminalreporter.section("servers")
    for line in config.stash[_servers].summary() or ["none was asked for"]:
        terminalreporter.line(line)


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    return pytestconfig.stash[_servers]


@pytest.fixture
def kafka_servers(servers: Servers, request: pytest.FixtureRequest) -> str:
    """`host:port` of a broker that all tests share; topics are told apart by their names."""
    return str(servers.kafka(request.node.nodeid).servers)


@pytest.fixture
def private_kafka(servers: Servers, request: pytest.FixtureRequest) -> Iterator[LocalKafka]:
    """A broker that this test may stop, kill and start."""
    servers.kafka(request.node.nodeid)  # skips or fails as every Kafka test does
    broker = LocalKafka(servers.folder("private-kafka"))
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def _template(servers: Servers) -> str:
    """An empty database with this release's tables, to be copied."""
    url = servers.postgres("").url
    name = f"template_{uuid.uuid4().hex}"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    engine = open_engine(f"{url}/{name}")
    migrate(engine)
    engine.dispose()
    return name


@pytest.fixture
def postgres_url(servers: Servers, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of this test's own, with this release's tables."""
    url = servers.postgres(request.node.nodeid).url
    template = request.getfixturevalue("_template")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield f"{url}/{name}"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store with this release's tables, once for each kind."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    url = f"sqlite:///{tmp_path}/store.db"
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()
    return url


@pytest.fixture(params=["sqlite", "kafka"])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a log, once for each kind."""
    if request.param == "kafka":
        return f"kafka://{request.getfixturevalue('kafka_servers')}"
    return f"sqlite:///{tmp_path}/log.db"
