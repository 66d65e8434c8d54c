"""The edge's memory under a steady load: `python -m bench.edge_memory`. Loopback only; two cores."""

import sys
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console

from bench import results
from bench.bodies import Kind
from bench.edge import fresh, show
from bench.edge_measure import Load, at_rate, saturate
from bench.edge_subjects import OURS, SUBJECTS, Subject

TITLE = "The edge's memory"
SLICE_SECONDS = 10.0
"""Between two looks at it. Each begins with connections of its own, as the pages of browsers do."""
SHARE = 0.6


class Memory(NamedTuple):
    """At this rate (requests/s), looked at every so many seconds."""

    rate: float
    every: float
    rss_mib: list[float]


def measure(seconds: float) -> Memory:
    """At a share of its saturation, requests of one event."""
    load = Load(Kind(1), 100)
    with fresh(load.organisations) as place, SUBJECTS[OURS](place, 1) as subject:
        rate = saturate(place, subject, load, 5).rate
        seen = [_rss(subject)]
        for _ in range(round(seconds / SLICE_SECONDS)):
            at_rate(place, subject, load, SHARE, rate, SLICE_SECONDS)
            seen.append(_rss(subject))
    return Memory(rate * SHARE, SLICE_SECONDS, seen)


def table(memory: Memory) -> results.Table:
    """Once a minute, and at the end."""
    step = max(1, round(60 / memory.every))
    last = len(memory.rss_mib) - 1
    at = [*range(0, last, step), last]
    rows = [[f"{number * memory.every:.0f}", f"{memory.rss_mib[number]:.1f}"] for number in at]
    note = f"One event a request, {memory.rate:,.0f} requests/s. At most {max(memory.rss_mib):.1f} MiB."
    return results.table("Memory under a steady load", ["s", "RSS MiB"], rows, note)


def _rss(subject: Subject) -> float:
    return round(subject.cost().rss / 2**20, 1)


@click.command()
@click.option("--seconds", default=300.0, show_default=True, help="Of the load.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON of the run, such as bench/results/memory.json.")
def main(seconds: float, out: Path | None) -> None:
    """Load the edge steadily and watch its memory."""
    found = measure(seconds)
    show(Console(width=160), table(found))
    if out is not None:
        command = " ".join(["python -m bench.edge_memory", *sys.argv[1:]])
        results.write(out, TITLE, command, [table(found)], **found._asdict())


if __name__ == "__main__":
    main()
