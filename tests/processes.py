"""The real `zenstep` program as processes: started, found ready, killed, ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.servers.ports import end, free_port
from tests.working import until

PROGRAM = [sys.executable, "-c", "from cli.main import main; main()"]


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """This process's environment with these settings of ours and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZENSTEP_")}
    return kept | {f"ZENSTEP_{name.upper()}": str(value) for name, value in settings.items()}


def zenstep(settings: Mapping[str, object], *arguments: str) -> str:
    """Runs a command to its end and returns what it printed."""
    done = subprocess.run(
        [*PROGRAM, *arguments], env=environment(settings), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Process:
    """One role. `admin` is the address of its admin port, `base` that of its HTTP port where it has one."""

    def __init__(self, role: str, settings: Mapping[str, object], log: Path) -> None:
        ports = {"admin": free_port(), "http": free_port()}
        self.admin = f"http://127.0.0.1:{ports['admin']}"
        self.base = f"http://127.0.0.1:{ports['http']}"
        own = {f"{role}_admin_port": ports["admin"]} | ({} if role == "worker" else {f"{role}_port": ports["http"]})
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen([*PROGRAM, role], env=environment({**settings, **own}), stderr=stderr)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            return httpx.get(f"{self.admin}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """SIGKILL: nothing of it runs on."""
        self.process.kill()
        self.process.wait(20)

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@contextmanager
def role(name: str, settings: Mapping[str, object], folder: Path) -> Iterator[Process]:
    """A process that is ready, ended with the block."""
    started = Process(name, settings, folder / f"{name}-{free_port()}.log")
    try:
        until(started.ready)
        yield started
    finally:
        if started.process.poll() is None:
            end(started.process)
