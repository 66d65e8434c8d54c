"""One measured run: a subject takes a topic from its beginning into a fresh database, watched from outside."""

import statistics
import subprocess
import time
import uuid
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

import click
import psycopg

from bench.processes import cost, tree
from bench.worker_events import Shape
from bench.worker_subjects import Subject, begin, prepare, stop
from bench.worker_world import World

LOOK_SECONDS = 0.05
GIVE_UP_SECONDS = 120.0  # without anything more counted
IDLE_SECONDS = 1.5
STEADY = 0.8  # of what it cost in the slice before
IDLE_CPU = 0.1  # ours costs half of it where it has nothing to do, which is not to count as starting


class Figure(NamedTuple):
    """CPU in microseconds per event; memory in MiB."""

    subject: str
    events_per_second: float
    worker_us: float
    postgres_us: float
    rss_most: float


class Start(NamedTuple):
    """CPU seconds until a subject waits for the first event, which are not of any event."""

    worker: float
    postgres: float


class Watch:
    """Looks at a database through a connection whose own cost is known and not counted."""

    def __init__(self, world: World, database: str) -> None:
        self._world = world
        self._connection = psycopg.connect(f"{world.postgres.url}/{database}", autocommit=True)
        self._backend = self._connection.info.backend_pid

    def ask(self, query: str) -> list[int]:
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None
        return [int(value) for value in row]

    def postgres_cpu(self) -> float:
        """Of the postmaster and all it has started, checkpointer and WAL writer included."""
        postmaster = self._world.postgres.process
        assert postmaster is not None
        return cost(postmaster.pid).cpu - cost(self._backend).cpu

    def close(self) -> None:
        self._connection.close()


class Runs:
    """Runs on one world. What starting costs is found once for each subject and number of partitions."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._starts: dict[tuple[str, int], Start] = {}

    def measure(self, subject: Subject, shape: Shape, database: str | None = None, copies: int = 1) -> Figure:
        """Raises ClickException where not exactly every event was counted. A given `database` is kept.

        The rate is that from the first commit to the last; the CPU that of all events, start-up taken off.
        """
        start = self.start(subject, shape)
        self._world.prefix(shape)
        used = database or prepare(self._world, subject, shape)
        watch = Watch(self._world, used)
        before = watch.ask(subject.accounts)
        self._world.checkpoint()
        postgres = watch.postgres_cpu()
        group = f"g{uuid.uuid4().hex}"
        processes = [begin(self._world, subject, shape, used, group) for _ in range(copies)]
        try:
            rate = _wait(subject, watch, shape.events, processes)
            worker = sum(cost(process.pid).cpu for process in processes)
            rss = max(_peak(process.pid) for process in processes)
            self._world.checkpoint()
            postgres = watch.postgres_cpu() - postgres
        finally:
            for process in processes:
                stop(process)
        after = watch.ask(subject.accounts)
        watch.close()
        wrong = [b - a for a, b in zip(before, after, strict=True) if b - a != shape.events]
        if wrong:
            raise click.ClickException(f"{subject.name} counted {wrong} of {shape.events} events")
        if database is None:
            self._world.drop(used)
        return Figure(
            subject.name,
            rate,
            (worker - copies * start.worker) / shape.events * 1e6,
            (postgres - copies * start.postgres) / shape.events * 1e6,
            rss / 1024**2,
        )

    def start(self, subject: Subject, shape: Shape) -> Start:
        """On topics without an event. The less of two: what else the machine does makes a start cost more."""
        known = subject.name, shape.partitions
        if known not in self._starts:
            found = [self._started(subject, shape) for _ in range(2)]
            self._starts[known] = Start(min(one.worker for one in found), min(one.postgres for one in found))
        return self._starts[known]

    def _started(self, subject: Subject, shape: Shape) -> Start:
        empty = shape._replace(job="bare", events=0, organisations=1, skew="uniform")
        database = prepare(self._world, subject, empty)
        watch = Watch(self._world, database)
        self._world.checkpoint()
        postgres = watch.postgres_cpu()
        process = begin(self._world, subject, empty, database, f"g{uuid.uuid4().hex}")
        try:
            worker = _idle(process)
            self._world.checkpoint()
            found = Start(worker, watch.postgres_cpu() - postgres)
        finally:
            stop(process)
            watch.close()
        self._world.drop(database)
        return found


def median(figures: Sequence[Figure]) -> Figure:
    """Each number's own median over runs of one subject."""
    columns = list(zip(*(figure[1:] for figure in figures), strict=True))
    return Figure(figures[0].subject, *(statistics.median(column) for column in columns))


def _wait(subject: Subject, watch: Watch, events: int, processes: "Sequence[subprocess.Popen[bytes]]") -> float:
    """Until all is counted; returns events a second from the first commit seen to the last."""
    (base,) = watch.ask(subject.counted)
    last, moved = base, time.monotonic()
    first: tuple[float, int] | None = None
    while True:
        now, (counted,) = time.monotonic(), watch.ask(subject.counted)
        if counted > last:
            last, moved = counted, now
            first = first or (now, counted)
        if first is not None and counted - base >= events:
            return (counted - first[1]) / (now - first[0]) if now > first[0] else 0.0
        if any(process.poll() is not None for process in processes):
            raise click.ClickException(f"{subject.name} has ended by itself")
        if now > moved + GIVE_UP_SECONDS:
            raise click.ClickException(f"{subject.name} has counted {counted - base} of {events} events and no more")
        time.sleep(LOOK_SECONDS)


def _idle(process: "subprocess.Popen[bytes]") -> float:
    """CPU seconds of a process when it has begun to wait, which with many partitions costs something too."""
    last, before = cost(process.pid).cpu, inf
    while True:
        time.sleep(IDLE_SECONDS)
        now = cost(process.pid).cpu
        spent = now - last
        steady = spent < IDLE_SECONDS / 2 and spent > STEADY * before
        if now > IDLE_CPU and (spent < IDLE_CPU or steady):
            return now
        last, before = now, spent


def _peak(pid: int) -> int:
    """The most bytes that the processes of a tree had, each at its own time."""
    total = 0
    for member in tree(pid):
        lines = Path(f"/proc/{member}/status").read_text().splitlines()
        total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return total


def interleaved(runs: Runs, subjects: Sequence[Subject], shape: Shape, rounds: int) -> dict[str, list[Figure]]:
    """In turns, so that what else the machine does meets all of them."""
    found: dict[str, list[Figure]] = {subject.name: [] for subject in subjects}
    for _ in range(rounds):
        for subject in subjects:
            found[subject.name].append(runs.measure(subject, shape))
    return found
