"""A server in a container, through testcontainers, which is imported only where a test asks for a server."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def engine_answers() -> bool:
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


class ServerContainer:
    """A container that can be stopped and started, on one published port throughout. `close` removes it and its data.

    Nothing here waits for the server inside. What it printed is in `log` once it is closed.
    """

    def __init__(self, image: str, inside: int, port: int, environment: Mapping[str, object], log: Path) -> None:
        from testcontainers.core.container import DockerContainer

        self._log = log
        self._container = DockerContainer(image)
        ports: dict[str, Any] = self._container.ports
        ports[str(inside)] = ("127.0.0.1", port)  # with_bind_ports knows no address
        for name, value in environment.items():
            self._container.with_env(name, str(value))
        try:
            self._container.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        self._engines().start()

    def stop(self) -> None:
        self._engines().stop()

    def kill(self) -> None:
        self._engines().kill()

    def close(self) -> None:
        from testcontainers.core.exceptions import ContainerStartException

        with suppress(ContainerStartException):  # it never came to be
            self._log.write_bytes(self._engines().logs())
        self._container.stop()

    def _engines(self) -> Any:
        """The container as the engine's own client has it: testcontainers can only end one for good."""
        return self._container.get_wrapped_container()
