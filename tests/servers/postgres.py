"""PostgreSQL for tests: a cluster of its own in a temporary folder, or a container."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import psycopg

from tests.servers.containers import ServerContainer
from tests.servers.ports import end, free_port, wait_listening

IMAGE = "postgres:15-bookworm"
START_SECONDS = 30


def _binaries() -> Path:
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    found = [str(path) for path in candidates] + [path for path in [shutil.which("initdb")] if path]
    if not found:
        raise RuntimeError("no initdb")
    return Path(found[0]).resolve().parent


class Postgres(Protocol):
    """A server that a test may stop; `start` brings it back with its address and its data."""

    url: str

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class LocalPostgres:
    """Never as root: where the tests run as root, the server runs as `postgres`."""

    def __init__(self, folder: Path, port: int | None = None, options: Sequence[str] = ()) -> None:
        self._folder = folder
        self.log = folder / "postgres.log"
        self.port = port or free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}"
        binaries = _binaries()
        self._as = "postgres" if os.geteuid() == 0 else None
        if self._as:
            user = pwd.getpwnam(self._as)
            os.chown(folder, user.pw_uid, user.pw_gid)
        version = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True)
        self.how = "local process " + version.stdout.split()[2]
        initdb = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--no-sync"], user=self._as, check=True, capture_output=True, cwd=folder)
        self._command = [
            str(binaries / "postgres"),
            *("-D", str(folder / "data"), "-k", str(folder), "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=100"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, user=self._as, stdout=log, stderr=log, cwd=self._folder, umask=0o077
            )
        wait_listening(self.port, START_SECONDS, self._process, self.log)
        _wait_accepting(self.url)

    def stop(self) -> None:
        if self._process is not None:
            import signal

            self._process.send_signal(signal.SIGINT)  # fast shutdown: does not wait for clients
            end(self._process)
            self._process = None

    def close(self) -> None:
        self.stop()

    @property
    def process(self) -> "subprocess.Popen[bytes] | None":
        """The postmaster; None while it is stopped."""
        return self._process


def quick_postgres(folder: Path) -> LocalPostgres:
    """One that does not wait for the disk: for tests, none of which cuts the power of this machine."""
    return LocalPostgres(folder, options=["-c", "fsync=off", "-c", "full_page_writes=off"])


class ContainerPostgres:
    """A container. Its image prepares a new cluster without TCP, so what answers there is the server."""

    how = f"container {IMAGE}"

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{port}"
        environment = {"POSTGRES_HOST_AUTH_METHOD": "trust"}
        self._container = ServerContainer(IMAGE, 5432, port, environment, folder / "postgres.log")
        try:
            _wait_accepting(self.url)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        self._container.start()
        _wait_accepting(self.url)

    def stop(self) -> None:
        self._container.stop()

    def close(self) -> None:
        self._container.close()


def _wait_accepting(url: str) -> None:
    """A server listens before it lets anybody in. Raises psycopg.OperationalError where that takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(f"{url}/postgres", connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
