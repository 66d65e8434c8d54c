"""The worker's memory while millions of events wait for it: `python -m bench.worker_lag`. Loopback only; two cores."""

import sys
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console

from bench import results
from bench.edge import show
from bench.processes import cost
from bench.worker_events import Shape
from bench.worker_run import Watch
from bench.worker_subjects import OURSELVES, begin, prepare, stop
from bench.worker_world import World, world

SHOWN = 10


class Sample(NamedTuple):
    """At so many seconds: events counted, memory in MiB."""

    at: float
    counted: int
    rss: float


def measure(place: World, shape: Shape, seconds: float, every: float) -> list[Sample]:
    """From the start of the worker until it has counted all, or for so long."""
    place.prefix(shape)
    database = prepare(place, OURSELVES, shape)
    watch = Watch(place, database)
    process = begin(place, OURSELVES, shape, database, f"g{uuid.uuid4().hex}")
    samples: list[Sample] = []
    begun = time.monotonic()
    try:
        while not samples or (samples[-1].counted < shape.events and samples[-1].at < seconds):
            time.sleep(every)
            if process.poll() is not None:
                raise click.ClickException("the worker has ended by itself")
            (counted,) = watch.ask(OURSELVES.counted)
            at = round(time.monotonic() - begun, 1)
            samples.append(Sample(at, counted, round(cost(process.pid).rss / 2**20, 1)))
    finally:
        stop(process)
        watch.close()
    return samples


def table(shape: Shape, samples: list[Sample]) -> results.Table:
    """Some of the samples, evenly, and the most."""
    step = max(1, len(samples) // SHOWN)
    rows = [[f"{s.at:.0f}", f"{s.counted:,}", f"{shape.events - s.counted:,}", f"{s.rss:.0f}"] for s in samples[::step]]
    most = max(sample.rss for sample in samples)
    note = f"{shape.label}. The most of all {len(samples)} samples is {most:.0f} MiB."
    return results.table("Memory behind a lag", ["seconds", "counted", "waiting", "RSS MiB"], rows, note)


@click.command()
@click.option("--events", default=10_000_000, show_default=True, help="That wait when the worker starts.")
@click.option("--seconds", default=300.0, show_default=True, help="At most.")
@click.option("--every", default=2.0, show_default=True, help="Seconds between samples.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON of the run, such as bench/results/lag.json.")
def main(events: int, seconds: float, every: float, out: Path | None) -> None:
    """Start a worker on a long topic and watch its memory. Filling the topic takes longer than the watching."""
    shape = Shape("full", events)
    with world() as place:
        samples = measure(place, shape, seconds, every)
    made = table(shape, samples)
    show(Console(width=160), made)
    if out is not None:
        command = " ".join(["python -m bench.worker_lag", *sys.argv[1:]])
        results.write(out, "Lag", command, [made], samples=[sample._asdict() for sample in samples])


if __name__ == "__main__":
    main()
