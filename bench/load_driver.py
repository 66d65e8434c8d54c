"""The load's process, as the benchmark holds it: one run after the other."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from bench.load import Order, Result
from tests.servers.ports import end


class Driver:
    """On the cores of the process that starts it. `keys` have those of few organisations first."""

    def __init__(self, keys: Sequence[str], folder: Path) -> None:
        path = folder / "keys.json"
        path.write_text(json.dumps(list(keys)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._line()

    def run(self, order: Order, subject: str) -> Result:
        """Raises ClickException with what was answered, where that was not a 202 for each."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order._asdict()) + "\n")
        self._process.stdin.flush()
        found = Result(**json.loads(self._line()))
        if found.error:
            raise click.ClickException(f"{subject} did not answer 202 to everything: {found.error}")
        return found

    def close(self) -> None:
        end(self._process)  # type: ignore[arg-type]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException("the load's process has ended")
        return line
