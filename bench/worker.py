"""What an event costs the worker, beside its peers: `python -m bench.worker`. Loopback only; two cores."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console

from bench import results
from bench.edge import show
from bench.worker_events import Job, Shape, Skew
from bench.worker_run import Figure, Runs, interleaved, median
from bench.worker_subjects import ALL, OURSELVES, Subject
from bench.worker_world import world

TITLE = "The worker"
PLAN: tuple[tuple[Job, int], ...] = (("bare", 10), ("full", 10), ("bare", 1), ("full", 1))
COLUMNS = ("", "events/s", "of the best peer", "worker CPU us/event", "PostgreSQL CPU us/event", "RSS most MiB")
SAID = {
    "bare": "De-duplication ids and counters only",
    "full": "Everything on: sessions, cohorts and sketches too, which the peers leave out",
}
NOTE = "Batches of 10,000 events; worker on one core, PostgreSQL and Kafka on the other."


def rows(figures: Sequence[Figure], versions: Mapping[str, str]) -> list[list[str]]:
    """Of medians, one a subject."""
    best = max((figure.events_per_second for figure in figures if figure.subject != OURSELVES.name), default=None)
    return [
        [
            f"{figure.subject} {versions[figure.subject]}".strip(),
            f"{figure.events_per_second:,.0f}",
            f"{figure.events_per_second / best:.2f}x" if best else "",
            f"{figure.worker_us:.1f}",
            f"{figure.postgres_us:.1f}",
            f"{figure.rss_most:.0f}",
        ]
        for figure in figures
    ]


def table(shape: Shape, found: Mapping[str, Sequence[Figure]]) -> results.Table:
    versions = {subject.name: subject.version for subject in ALL}
    records = f"{shape.per_record} event{'s' if shape.per_record > 1 else ''} a record"
    title = f"{SAID[shape.job]}; {records}"
    note = f"{shape.events:,} events of {shape.organisations:,} organisations ({shape.skew}). {NOTE}"
    return results.table(
        title, COLUMNS, rows([median(theirs) for theirs in found.values()], versions), note, shape.per_record == 10
    )


@click.command()
@click.option("--events", default=200_000, show_default=True, help="In each topic.")
@click.option("--rounds", default=2, show_default=True, help="Runs of each subject, in turns.")
@click.option("--job", type=click.Choice(["bare", "full"]), help="Only this one.")
@click.option("--per-record", type=click.Choice(["1", "10"]), help="Only topics with so many events a record.")
@click.option("--subject", "names", multiple=True, type=click.Choice([s.name for s in ALL]), help="Only these.")
@click.option("--organisations", default=200, show_default=True)
@click.option("--skew", default="zipf", show_default=True, type=click.Choice(["zipf", "uniform"]))
@click.option("--out", type=click.Path(path_type=Path), help="JSON of the run, such as bench/results/worker.json.")
def main(
    events: int,
    rounds: int,
    job: str | None,
    per_record: str | None,
    names: tuple[str, ...],
    organisations: int,
    skew: Skew,
    out: Path | None,
) -> None:
    """Have each subject consume the same topics from their beginning, each time into a fresh database."""
    console = Console(width=160)
    subjects: list[Subject] = [subject for subject in ALL if not names or subject.name in names]
    measured: list[tuple[Shape, dict[str, list[Figure]]]] = []
    with world() as place:
        runs = Runs(place)
        for each, count in PLAN:
            if job in (None, each) and per_record in (None, str(count)):
                shape = Shape(each, events, count, organisations, skew=skew)
                measured.append((shape, interleaved(runs, subjects, shape, rounds)))
                show(console, table(*measured[-1]))
    if out is not None:
        command = " ".join(["python -m bench.worker", *sys.argv[1:]])
        raw = [{"topic": shape._asdict(), "runs": _raw(found)} for shape, found in measured]
        results.write(out, TITLE, command, [table(*one) for one in measured], measured=raw)


def _raw(found: Mapping[str, Sequence[Figure]]) -> dict[str, list[dict[str, object]]]:
    return {name: [figure._asdict() for figure in theirs] for name, theirs in found.items()}


if __name__ == "__main__":
    main()
