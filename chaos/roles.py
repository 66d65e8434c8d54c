"""A role of the product as a process that the harness starts, kills and freezes, always on the same ports."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx

from chaos.ports import settled_port
from chaos.process import NOTE, lose_power
from chaos.spools import SpoolDisk
from tests.processes import environment
from tests.servers.ports import end


class Role:
    """`name` is such as `edge-1`. `settings` are those of the product, without its ports."""

    def __init__(self, name: str, settings: Mapping[str, object], folder: Path, sabotage: str | None = None) -> None:
        self.name = name
        self.kind = name.partition("-")[0]
        ports = {"admin": settled_port(), "http": settled_port()}
        self.admin = f"http://127.0.0.1:{ports['admin']}"
        self.base = f"http://127.0.0.1:{ports['http']}"
        own = {f"{self.kind}_admin_port": ports["admin"]}
        if self.kind == "edge":
            own[f"{self.kind}_port"] = ports["http"]
        self.note = folder / f"{name}.synced"
        self._environment = environment({**settings, **own}) | {NOTE: str(self.note)}
        options = ["--sabotage", sabotage] if sabotage else []
        self._command = [sys.executable, "-m", "chaos.process", *options, self.kind]
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None while it is dead."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        if self.pid is None:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)

    def ended_by_itself(self) -> int | None:
        """Its exit code, where it ended and nobody killed it."""
        return self._process.poll() if self._process is not None else None

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.admin}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels. Raises httpx.TransportError."""
        lines = httpx.get(f"{self.admin}/metrics", timeout=5).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def freeze(self) -> None:
        if self.pid is not None:
            os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, as an orchestrator would."""
        if self._process is not None:
            self.thaw()
            end(self._process)
            self._process = None


class Edge(Role):
    """An edge, with the disk of its spool."""

    def __init__(self, name: str, settings: Mapping[str, object], folder: Path, sabotage: str | None = None) -> None:
        self.disk = SpoolDisk(folder / f"{name}.spool")
        super().__init__(name, {**settings, "spool_path": self.disk.path}, folder, sabotage)

    def lose_power(self) -> int:
        """Kills it and takes what was not synced from its spool; returns the bytes lost."""
        self.kill()
        return lose_power(self.disk.path, self.note)

    def stop(self) -> None:
        super().stop()
        self.disk.close()
