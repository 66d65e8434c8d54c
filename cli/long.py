"""What commands that run long share: a rate, progress on a terminal, and an end in order on SIGINT and SIGTERM."""

import signal
import sys
import threading
import time
from types import FrameType, TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

STOPPED = 130
"""The exit code of a command that was interrupted, as shells have it."""

rate_option = click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Lines a second at most.")


class LongRun:
    """`stopped` is to be asked between two steps; a second signal ends the command at once. For the main thread."""

    def __init__(self, label: str, total: int | None, rate: float | None = None) -> None:
        terminal = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=terminal, disable=not sys.stderr.isatty())
        self._task = self._progress.add_task(label, total=total)
        self._rate = rate
        self._stop = threading.Event()
        self._started = time.monotonic()
        self._done = 0

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def most(self, step: int) -> int:
        """How many lines to do in one step, so that a rate is kept within a second."""
        return step if self._rate is None else max(1, min(step, int(self._rate)))

    def done(self, lines: int, steps: int | None = None) -> None:
        """Says how many were done since the last call, and waits where that was faster than the rate.

        `steps` is by how many of the total that is, where it is not in lines.
        """
        self._done += lines
        self._progress.advance(self._task, lines if steps is None else steps)
        if self._rate is not None:
            self._stop.wait(max(0.0, self._started + self._done / self._rate - time.monotonic()))

    def __enter__(self) -> "LongRun":
        self._before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._stop.set()
