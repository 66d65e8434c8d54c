"""Fixtures over the servers: `log_url` and `store_url` come in every kind, so that each suite runs on all of them."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.servers.find import Servers
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.stores import make_store

_servers = pytest.StashKey[Servers]()
_notes = pytest.StashKey[list[str]]()
_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_servers] = Servers()
    config.stash[_notes] = []
    config.stash[_failed] = True  # until the session ends well: a run that is broken off keeps its logs too


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    config.stash[_failed] = exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    servers = config.stash[_servers]
    if servers.summary():
        config.stash[_notes] += servers.summary()
        if config.stash[_failed]:
            config.stash[_notes].append(f"their logs are kept in {servers.logs}")
    if hasattr(config, "workeroutput"):  # one of several processes that share the tests
        config.workeroutput["notes"] = config.stash[_notes]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[_notes] += getattr(node, "workeroutput", {}).get("notes", [])


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_servers].close(keep_logs=config.stash[_failed])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    terminalreporter.section("servers and notes")
    for line in config.stash[_notes] or ["no server was asked for"]:
        terminalreporter.line(line)


@pytest.fixture
def note(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Has a line printed at the end of the run."""
    return pytestconfig.stash[_notes].append


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    return pytestconfig.stash[_servers]


@pytest.fixture
def kafka_servers(servers: Servers, request: pytest.FixtureRequest) -> str:
    """`host:port` of a broker that all tests share; topics are told apart by their names."""
    return str(servers.kafka(request.node.nodeid).servers)


@pytest.fixture
def private_kafka(servers: Servers, request: pytest.FixtureRequest) -> Iterator[Kafka]:
    """A broker that this test may stop, kill and start."""
    broker = servers.private_kafka(request.node.nodeid)
    yield broker
    broker.close()


@pytest.fixture
def private_postgres(servers: Servers, request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A PostgreSQL that this test may stop and start; its database `postgres` is empty."""
    server = servers.private_postgres(request.node.nodeid)
    yield server
    server.close()


@pytest.fixture
def redis_url(servers: Servers, request: pytest.FixtureRequest) -> str:
    """A Redis that all tests share; what they count is told apart by its keys."""
    return str(servers.redis(request.node.nodeid).url)


@pytest.fixture
def private_redis(servers: Servers, request: pytest.FixtureRequest) -> Iterator[Redis]:
    """A Redis that this test may stop, kill and start."""
    server = servers.private_redis(request.node.nodeid)
    yield server
    server.close()


@pytest.fixture(scope="session")
def _template(servers: Servers) -> str:
    """An empty database with this release's tables, to be copied."""
    url = servers.postgres("").url
    name = f"template_{uuid.uuid4().hex}"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    make_store(f"{url}/{name}")
    return name


def _copied_as_files(connection: "psycopg.Connection[Any]") -> str:
    """PostgreSQL 15 writes a copy into its log, page by page, unless it is told to do as those before it did."""
    return " STRATEGY FILE_COPY" if connection.info.server_version >= 150000 else ""


@pytest.fixture
def postgres_url(servers: Servers, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of this test's own, with this release's tables."""
    url = servers.postgres(request.node.nodeid).url
    template = request.getfixturevalue("_template")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{_copied_as_files(connection)}')
    yield f"{url}/{name}"
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store with this release's tables, once for each kind."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    url = f"sqlite:///{tmp_path}/store.db"
    make_store(url)
    return url


@pytest.fixture(params=["sqlite", "kafka"])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a log, once for each kind."""
    if request.param == "kafka":
        return f"kafka://{request.getfixturevalue('kafka_servers')}"
    return f"sqlite:///{tmp_path}/log.db"
