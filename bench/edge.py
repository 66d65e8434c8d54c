"""What a request costs the edge, beside its peers: `python -m bench.edge`. Loopback only; two cores."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table as RichTable

from bench import results
from bench.bodies import Kind
from bench.edge_measure import RATE_ROUNDS, Latency, Load, at_rate, doubled, middle, rounds, saturate
from bench.edge_subjects import FASTAPI, OURS, OURS_TWO, SUBJECTS, Subject
from bench.edge_tables import Measured, tables
from bench.edge_world import World, world

OUT = results.FOLDER / "edge.json"
SHARES = (0.3, 0.6, 0.8)
TITLE = "The edge"

ALL, PAIR = tuple(SUBJECTS), (OURS, FASTAPI)
PLAN: dict[Load, Sequence[str]] = {
    Load(Kind(1), 100): ALL,
    Load(Kind(50), 100): ALL,
    Load(Kind(1, gzip=True), 100): PAIR,
    Load(Kind(50, gzip=True), 100): PAIR,
    Load(Kind(1), 1): PAIR,
    Load(Kind(50), 1): PAIR,
    Load(Kind(1), 10_000): PAIR,
    Load(Kind(50), 10_000): PAIR,
}


class Times(NamedTuple):
    """Rounds, and seconds of each measure."""

    rounds: int
    seconds: float
    warm: float
    latency: float


def measure(load: Load, names: Sequence[str], times: Times) -> Measured:
    """On servers of its own, so that what one load has filled, disks and caches, is not the next one's."""
    with fresh(load.organisations) as place, ExitStack() as stack:
        subjects = [stack.enter_context(SUBJECTS[name](place, load.kind.events)) for name in names]
        found = rounds(place, subjects, load, times.rounds, times.seconds, times.warm)
        latencies = {
            subject.name: rates(place, subject, load, middle(found[subject.name]).rate, times)
            for subject in subjects
            if times.latency
        }
        by_name = {subject.name: subject for subject in subjects}
        pairs = []
        if times.latency and {OURS, OURS_TWO} <= by_name.keys():
            most = middle(found[OURS]).rate
            pairs = doubled(place, by_name[OURS], by_name[OURS_TWO], load, most, times.latency)
    return Measured(load, found, latencies, pairs)


def rates(place: World, subject: Subject, load: Load, saturation: float, times: Times) -> list[Latency]:
    """Warmed up again: while others were measured, keys that it had looked up have grown old."""
    saturate(place, subject, load, times.warm)
    return [
        middle([at_rate(place, subject, load, share, saturation, times.latency) for _ in range(RATE_ROUNDS)])
        for share in SHARES
    ]


@contextmanager
def fresh(organisations: int) -> Iterator[World]:
    with (
        tempfile.TemporaryDirectory(prefix="zenstep-bench-", ignore_cleanup_errors=True) as name,
        world(Path(name), organisations) as place,
    ):
        yield place


def show(console: Console, table: results.Table) -> None:
    shown = RichTable(*table["columns"], title=table["title"], caption=table["note"], title_justify="left")
    for row in table["rows"]:
        shown.add_row(*row)
    console.print(shown)


@click.command()
@click.option("--rounds", "number", default=10, show_default=True, help="Measures of each server, in turns.")
@click.option("--seconds", default=1.5, show_default=True, help="Of each measure.")
@click.option("--warm", default=2.0, show_default=True, help="Seconds before the first one.")
@click.option("--latency", default=3.0, show_default=True, help="Seconds of a measure at a rate; 0 leaves them out.")
@click.option("--events", type=click.Choice(["1", "50"]), help="Only bodies of this size.")
@click.option("--organisations", type=int, help="Only loads with so many.")
@click.option("--plain", is_flag=True, help="Only bodies that are not compressed.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON of the run, such as bench/results/edge.json.")
def main(
    number: int,
    seconds: float,
    warm: float,
    latency: float,
    events: str | None,
    organisations: int | None,
    plain: bool,
    out: Path | None,
) -> None:
    """Measure the edge and its peers under each load."""
    console = Console(width=160)
    times = Times(number, seconds, warm, latency)
    found = []
    for load, names in PLAN.items():
        asked = events in (None, str(load.kind.events)) and organisations in (None, load.organisations)
        if asked and not (plain and load.kind.gzip):
            console.print(f"{load.kind.name}, {load.organisations:,} organisations")
            found.append(measure(load, names, times))
            _write(out, found)  # a run is long: what is measured is not lost with what comes later
    for table in tables(found):
        show(console, table)


def _write(out: Path | None, found: Sequence[Measured]) -> None:
    if out is None:
        return
    command = "python -m bench.edge " + " ".join(sys.argv[1:])
    results.write(out, TITLE, command, tables(found), measured=[_raw(m) for m in found])


def _raw(found: Measured) -> dict[str, object]:
    return {
        "load": {**found.load.kind._asdict(), "organisations": found.load.organisations},
        "rounds": {name: [_rounded(one) for one in theirs] for name, theirs in found.rounds.items()},
        "latencies": {name: [_rounded(one) for one in theirs] for name, theirs in found.latencies.items()},
        "doubled": [[_rounded(one) for one in pair] for pair in found.doubled],
    }


def _rounded(one: NamedTuple) -> dict[str, float]:
    return {name: round(value, 3) for name, value in one._asdict().items()}


if __name__ == "__main__":
    main()
