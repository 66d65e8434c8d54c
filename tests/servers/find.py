"""Which servers the tests run on, found once a session: the environment, a container, a local process, none."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.kafka import ContainerKafka, LocalKafka
from tests.servers.postgres import ContainerPostgres, LocalPostgres

REQUIRED = {name.strip() for name in os.environ.get("ZENSTEP_TEST_REQUIRE", "").split(",") if name.strip()}
CONTAINERS_ONLY = os.environ.get("ZENSTEP_TEST_SERVERS") == "containers"


class Given:
    """A server that somebody else runs, by its address in the environment."""

    how = "given by the environment"

    def __init__(self, address: str) -> None:
        self.servers = self.url = address

    def stop(self) -> None:
        pass


class Servers:
    """Starts each kind when first asked for. What cannot be had is remembered with the reasons."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="zenstep-tests-"))
        self._folder.chmod(0o755)
        self._found: dict[str, Any] = {}
        self._problems: dict[str, str] = {}
        self.used: dict[str, set[str]] = {}

    def kafka(self, test: str) -> Any:
        return self._get("kafka", "ZENSTEP_TEST_KAFKA", ContainerKafka, lambda: LocalKafka(self.folder("kafka")), test)

    def postgres(self, test: str) -> Any:
        local = lambda: LocalPostgres(self.folder("postgres"))  # noqa: E731
        return self._get("postgres", "ZENSTEP_TEST_POSTGRES", ContainerPostgres, local, test)

    def folder(self, name: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        folder.chmod(0o755)
        return folder

    def summary(self) -> list[str]:
        lines = [f"{name}: {server.how}, {len(self.used[name])} tests" for name, server in self._found.items()]
        return lines + [f"{name}: none ({problem})" for name, problem in self._problems.items()]

    def close(self, failed: bool) -> None:
        import shutil

        for server in self._found.values():
            server.stop()
        if not failed:
            shutil.rmtree(self._folder, ignore_errors=True)

    def logs(self) -> Path:
        return self._folder

    def _get(self, name: str, variable: str, container: Callable[[], Any], local: Callable[[], Any], test: str) -> Any:
        if name not in self._found and name not in self._problems:
            self._find(name, variable, container, local)
        if name in self._problems:
            if name in REQUIRED:
                pytest.fail(f"{name} is required: {self._problems[name]}")
            pytest.skip(f"no {name} to be had: {self._problems[name]}")
        self.used.setdefault(name, set()).add(test)
        return self._found[name]

    def _find(self, name: str, variable: str, container: Callable[[], Any], local: Callable[[], Any]) -> None:
        problems = []
        given = os.environ.get(variable)
        ways: list[tuple[str, Callable[[], Any]]] = [("container", container)] if _engine_answers() else []
        if not ways:
            problems.append("no container engine")
        if given:
            ways = [("environment", lambda: Given(given))]
        elif not CONTAINERS_ONLY:
            ways.append(("local process", local))
        for way, start in ways:
            try:
                self._found[name] = start()
                return
            except Exception as error:  # whatever kept this way from working, the next may do
                problems.append(f"{way}: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}")
        self._problems[name] = "; ".join(problems)


def _engine_answers() -> bool:
    """A socket that is there and answers; testcontainers itself waits long for one that does not."""
    import docker

    try:
        client = docker.from_env(timeout=3)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except Exception:  # docker's own errors are of many families, and each means no
        return False
