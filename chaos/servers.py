"""Kafka and PostgreSQL as local processes that are killed and frozen whole."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psycopg

from chaos.ports import settled_port
from tests.servers.kafka import LocalKafka
from tests.servers.postgres import LocalPostgres

KAFKA_HEAP = "320m"


def tree(pid: int) -> list[int]:
    """A process and all below it, itself first."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parents[int(folder.name)] = int(_stat(folder)[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _stat(folder: Path) -> list[str]:
    """State, parent and so on: what follows the name, which may hold anything, of /proc/PID/stat."""
    return (folder / "stat").read_text().rpartition(") ")[2].split()


class Server:
    """What can be done to either."""

    def __init__(self, server: LocalKafka | LocalPostgres) -> None:
        self.server = server

    def kill(self) -> None:
        """SIGKILL to all of it, and nothing of it is left when this returns."""
        pids = self._signal(signal.SIGKILL)
        if self.server.process is not None:
            self.server.process.wait(20)
        deadline = time.monotonic() + 20
        while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def start(self) -> None:
        """Returns when it answers. One that runs is left alone."""
        if self._pid() is None:
            self.server.start()

    def close(self) -> None:
        self.thaw()
        self.server.close()

    def _pid(self) -> int | None:
        process: subprocess.Popen[bytes] | None = self.server.process
        return process.pid if process is not None and process.poll() is None else None

    def _signal(self, number: int) -> list[int]:
        pid = self._pid()
        pids = tree(pid) if pid is not None else []
        for one in pids:
            with suppress(ProcessLookupError):
                os.kill(one, number)
        return pids


class KafkaServer(Server):
    """`via` has the port of each further listener and that of the proxy which its clients are told."""

    def __init__(self, folder: Path, via: Mapping[int, int]) -> None:
        self.kafka = LocalKafka(folder, settled_port(), via, KAFKA_HEAP)
        super().__init__(self.kafka)


class PostgresServer(Server):
    """With a database of its own, `postgres`."""

    def __init__(self, folder: Path) -> None:
        self.postgres = LocalPostgres(folder, settled_port())
        self.url = f"{self.postgres.url}/postgres"
        super().__init__(self.postgres)

    def kill_backend(self) -> None:
        """SIGKILL to the server process of one client, which has it end all others and recover. Down, it has none."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
            "ORDER BY state = 'idle', query_start DESC LIMIT 1"
        )
        with suppress(psycopg.OperationalError, ProcessLookupError):  # it is down, or the client has just gone
            with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
                row = connection.execute(query).fetchone()
            if row is not None:
                os.kill(row[0], signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        return _stat(Path("/proc") / str(pid))[0] != "Z"
    except OSError:
        return False
