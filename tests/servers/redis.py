"""Redis for tests: a process of its own that keeps nothing on disk, or a container."""

import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Protocol

import redis

from tests.servers.containers import ServerContainer
from tests.servers.ports import end, free_port, wait_listening

IMAGE = "redis:7-bookworm"
START_SECONDS = 30


class Redis(Protocol):
    """A server of the tests' own. `stop`, `kill` and `start` keep its address, and lose its data."""

    how: str
    url: str

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


class LocalRedis:
    """A process on this machine: Redis, or Valkey."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise RuntimeError("no redis-server")
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        self.how = f"local process {version.stdout.split('v=')[1].split()[0]}"
        self.log = folder / "redis.log"
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._command = [program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self._folder)
        wait_listening(self.port, START_SECONDS, self._process, self.log)
        _wait_answering(self.url)

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()


class ContainerRedis:
    """A container."""

    how = f"container {IMAGE}"

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._container = ServerContainer(IMAGE, 6379, port, {}, folder / "redis.log")
        try:
            _wait_answering(self.url)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        self._container.start()
        _wait_answering(self.url)

    def stop(self) -> None:
        self._container.stop()

    def kill(self) -> None:
        self._container.kill()

    def close(self) -> None:
        self._container.close()


def _wait_answering(url: str) -> None:
    """A published port answers before the server does. Raises redis.RedisError where that takes too long.

    It is to lose its data when it stops, which the image's own configuration would save.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with redis.Redis.from_url(url, socket_timeout=5) as client:
                client.config_set("save", "")
            return
        except redis.RedisError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
