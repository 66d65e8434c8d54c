"""Which servers the tests run on, found once a session: the environment, a container, a local process, none."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.containers import engine_answers
from tests.servers.kafka import ContainerKafka, Kafka, quick_kafka, restless_kafka
from tests.servers.postgres import ContainerPostgres, Postgres, quick_postgres
from tests.servers.redis import ContainerRedis, LocalRedis, Redis

REQUIRED = {name.strip() for name in os.environ.get("ZENSTEP_TEST_REQUIRE", "").split(",") if name.strip()}
CONTAINERS_ONLY = os.environ.get("ZENSTEP_TEST_SERVERS") == "containers"

Start = Callable[[Path], Any]
"""Starts a server whose files are to be in this folder."""


class Unavailable(Exception):
    """No way to have this server works; the message says why, way by way."""


class Given:
    """A server that somebody else runs, by its address in the environment."""

    how = "given by the environment"

    def __init__(self, address: str) -> None:
        self.servers = self.url = address

    def close(self) -> None:
        pass


class Servers:
    """Starts each kind when first asked for. What cannot be had is remembered with the reasons."""

    def __init__(self) -> None:
        self.logs = Path(tempfile.mkdtemp(prefix="zenstep-tests-"))
        self.logs.chmod(0o755)
        self._found: dict[str, Any] = {}
        self._problems: dict[str, str] = {}
        self._used: dict[str, set[str]] = {}

    def kafka(self, test: str) -> Any:
        return self._get("kafka", ContainerKafka, quick_kafka, test)

    def postgres(self, test: str) -> Any:
        return self._get("postgres", ContainerPostgres, quick_postgres, test)

    def redis(self, test: str) -> Any:
        return self._get("redis", ContainerRedis, LocalRedis, test)

    def private_kafka(self, test: str) -> Kafka:
        """A broker that the test may stop, and has to close."""
        self.kafka(test)  # skips or fails as every Kafka test does
        broker: Kafka = self._private("kafka", ContainerKafka, restless_kafka)
        return broker

    def private_postgres(self, test: str) -> Postgres:
        """A PostgreSQL that the test may stop, and has to close."""
        self.postgres(test)
        server: Postgres = self._private("postgres", ContainerPostgres, quick_postgres)
        return server

    def private_redis(self, test: str) -> Redis:
        """A Redis that the test may stop, and has to close."""
        self.redis(test)
        server: Redis = self._private("redis", ContainerRedis, LocalRedis)
        return server

    def summary(self) -> list[str]:
        lines = [f"{name}: {server.how}, {len(self._used[name])} tests" for name, server in self._found.items()]
        return lines + [f"{name}: none ({problem})" for name, problem in self._problems.items()]

    def close(self, keep_logs: bool) -> None:
        for server in self._found.values():
            server.close()
        if not keep_logs or not any(self.logs.iterdir()):
            shutil.rmtree(self.logs, ignore_errors=True)
        for data in self.logs.glob("*/data"):
            shutil.rmtree(data, ignore_errors=True)

    def _get(self, name: str, container: Start, local: Start, test: str) -> Any:
        if name not in self._found and name not in self._problems:
            given = os.environ.get(f"ZENSTEP_TEST_{name.upper()}")
            try:
                self._found[name] = Given(given) if given else self._start(name, container, local)
            except Unavailable as problem:
                self._problems[name] = str(problem)
        if name in self._problems:
            if name in REQUIRED:
                pytest.fail(f"{name} is required: {self._problems[name]}")
            pytest.skip(f"no {name} to be had: {self._problems[name]}")
        self._used.setdefault(name, set()).add(test)
        return self._found[name]

    def _private(self, name: str, container: Start, local: Start) -> Any:
        try:
            return self._start(f"private-{name}", container, local)
        except Unavailable as problem:  # only where the shared one was given
            pytest.skip(f"no {name} that may be stopped: {problem}")

    def _start(self, name: str, container: Start, local: Start) -> Any:
        """Raises Unavailable."""
        problems = []
        ways: list[tuple[str, Start]] = []
        if engine_answers():
            ways.append(("container", container))
        else:
            problems.append("no container engine")
        if not CONTAINERS_ONLY:
            ways.append(("local process", local))
        for way, start in ways:
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.logs))
            folder.chmod(0o755)
            try:
                return start(folder)
            except Exception as error:  # whatever kept this way from working, the next may do
                problems.append(f"{way}: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}")
        raise Unavailable("; ".join(problems))
