"""The whole system in one process on SQLite files, as `zenstep dev` runs it: `python -m bench.embedded`."""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import httpx
from rich.console import Console

from backends.store.catalog import Catalog
from backends.store.counting import Counting
from backends.store.engine import open_engine
from bench import results
from bench.edge import show
from bench.processes import cost, pin
from bench.worker_events import catalogue
from bench.worker_load import Plan, requests, send
from bench.worker_world import REST_CORE, SERVER_CORE
from cli import embedded
from schemas.limits import MAX_LIMIT
from tests.processes import PROGRAM, environment
from tests.servers.ports import end, free_port
from tests.working import until

ORGANISATIONS = 10
PER_REQUEST = 10
CONNECTIONS = 32
READY_SECONDS = 0.005


class Figure(NamedTuple):
    """Events a second until accepted and until counted, CPU microseconds an event, memory in MiB."""

    accepted_per_second: float
    counted_per_second: float
    cpu_us: float
    rss: float


class Start(NamedTuple):
    """Seconds from the command to ready."""

    fresh: float
    again: float


class System:
    """A folder and the process that runs on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port, self._admin = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Returns after how many seconds it was ready."""
        arguments = ["dev", "--data", str(self._folder), "--port", str(self.port), "--admin-port", str(self._admin)]
        begun = time.monotonic()
        self.process = subprocess.Popen([*PROGRAM, *arguments], env=environment({}), stdout=subprocess.DEVNULL)
        pin(self.process.pid, SERVER_CORE)
        with httpx.Client(trust_env=False) as client:
            while not self._ready(client):
                time.sleep(READY_SECONDS)
        return time.monotonic() - begun

    def stop(self) -> None:
        if self.process is not None:
            end(self.process, 40)

    def open(self) -> tuple[list[str], Counting]:
        """A key of each organisation, made before the process starts, and its ledger."""
        settings = embedded.settings_in(self._folder, self.port, self._admin)
        embedded.prepare(settings)
        engine = open_engine(settings.store_url)
        catalog = Catalog(engine)
        keys = []
        for flows in catalogue(ORGANISATIONS):
            organisation = catalog.create_organisation("Bench", flows[0].organisation)
            catalog.set_limit(organisation, "events", MAX_LIMIT)
            catalog.import_flow(*flows)
            keys.append(catalog.create_key(organisation))
        return keys, Counting(engine)

    def _ready(self, client: httpx.Client) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise click.ClickException("the system has ended by itself")
        try:
            return client.get(f"http://127.0.0.1:{self._admin}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def system() -> Iterator[System]:
    with tempfile.TemporaryDirectory(prefix="zenstep-embedded-", ignore_cleanup_errors=True) as folder:
        made = System(Path(folder) / "data")
        try:
            yield made
        finally:
            made.stop()


def start_up() -> Start:
    """On no folder at all, and on one that was used before."""
    with system() as made:
        fresh = made.start()
        made.stop()
        return Start(fresh, made.start())


def throughput(events: int) -> Figure:
    """All of them sent as fast as they are accepted. Raises ClickException where not exactly they were counted."""
    with system() as made:
        keys, counting = made.open()
        source = requests(catalogue(ORGANISATIONS), keys, PER_REQUEST)
        prepared = list(itertools.islice(source, events // PER_REQUEST))
        made.start()
        assert made.process is not None
        before = cost(made.process.pid)
        begun = time.monotonic()
        plan = Plan(made.port, keys, ORGANISATIONS, PER_REQUEST, CONNECTIONS, 0.0, requests=len(prepared))
        sent = asyncio.run(send(plan, iter(prepared)))
        until(lambda: _counted(counting) >= sent.events, 300)
        counted_in = time.monotonic() - begun
        after = cost(made.process.pid)
        if _counted(counting) != sent.events:
            raise click.ClickException(f"{_counted(counting)} of {sent.events} events were counted")
    spent = (after.cpu - before.cpu) / sent.events * 1e6
    return Figure(sent.events / sent.seconds, sent.events / counted_in, spent, after.rss / 2**20)


def _counted(counting: Counting) -> int:
    return counting.ledger().get("counted", 0)


def tables(figures: list[Figure], starts: list[Start]) -> list[results.Table]:
    figure = [statistics.median(column) for column in zip(*figures, strict=True)]
    start = [statistics.median(column) for column in zip(*starts, strict=True)]
    rows = [
        ["events/s accepted, each on disk before its answer", f"{figure[0]:,.0f}"],
        ["events/s counted, from the first request to the last count", f"{figure[1]:,.0f}"],
        ["CPU us per event, edge and worker together", f"{figure[2]:.1f}"],
        ["RSS MiB", f"{figure[3]:.0f}"],
        ["seconds to ready, on a new folder", f"{start[0]:.2f}"],
        ["seconds to ready, on a folder used before", f"{start[1]:.2f}"],
    ]
    note = f"Requests of {PER_REQUEST} events over {CONNECTIONS} connections, {ORGANISATIONS} organisations; one core."
    return [results.table("One process on SQLite files", ["", "median"], rows, note, headline=True)]


@click.command()
@click.option("--events", default=100_000, show_default=True, help="Of a run.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON of the run, such as bench/results/embedded.json.")
def main(events: int, rounds: int, out: Path | None) -> None:
    """Measure start-up and throughput."""
    pin(os.getpid(), REST_CORE)
    starts = [start_up() for _ in range(rounds)]
    figures = [throughput(events) for _ in range(rounds)]
    made = tables(figures, starts)
    for table in made:
        show(Console(width=140), table)
    if out is not None:
        command = " ".join(["python -m bench.embedded", *sys.argv[1:]])
        raw = {"runs": [f._asdict() for f in figures], "starts": [s._asdict() for s in starts]}
        results.write(out, "Embedded", command, made, **raw)


if __name__ == "__main__":
    main()
