"""How the worker's cost per event grows, one thing at a time: `python -m bench.growth`. Loopback only; two cores."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import psycopg
from rich.console import Console

from bench import results
from bench.edge import show
from bench.worker_events import Job, Shape, catalogue
from bench.worker_run import Figure, Runs, median
from bench.worker_subjects import OURSELVES, prepare
from bench.worker_world import World, world

COLUMNS = ("", "events/s", "worker CPU us/event", "PostgreSQL CPU us/event", "of the first", "RSS most MiB")
LONGER = 4
"""Times as many events for workers that share them: what it costs once that they do is not of the events."""
DAYS = 8  # that a window of seven days touches
FILL = """
INSERT INTO seen (organisation_id, day, event_id)
SELECT (%(organisations)s::uuid[])[1 + number %% %(many)s], %(today)s - number %% %(days)s, gen_random_uuid()
FROM generate_series(0, %(rows)s - 1) AS number
"""
TODAY = "SELECT (extract(epoch FROM now()) / 86400)::int"


class Point(NamedTuple):
    """One row of a table. `seen` rows are there before; `workers` share the partitions."""

    name: str
    shape: Shape
    seen: int = 0
    workers: int = 1


class Grown(NamedTuple):
    """A table: what is the same in its rows, and they."""

    base: Shape
    points: list[Point]


def grown(base: Shape) -> dict[str, Grown]:
    """By the title of their table."""
    longer = base._replace(events=LONGER * base.events)
    return {
        "Events a record": Grown(base, [Point(str(n), base._replace(per_record=n)) for n in (1, 10, 50)]),
        "Organisations": Grown(base, [Point(f"{n:,}", base._replace(organisations=n)) for n in (1, 100, 10_000)]),
        "Partitions": Grown(base, [Point(str(n), base._replace(partitions=n)) for n in (1, 8, 64)]),
        "Ids remembered before": Grown(base, [Point(f"{n:,}", base, seen=n) for n in (10_000, 1_000_000, 10_000_000)]),
        "Workers on the partitions": Grown(longer, [Point(str(n), longer, workers=n) for n in (1, 2)]),
    }


def fill_seen(place: World, shape: Shape, rows: int) -> str:
    """A database whose worker has seen so many events in the last days."""
    database = prepare(place, OURSELVES, shape)
    organisations = [flows[0].organisation for flows in catalogue(shape.organisations)]
    given = {"organisations": organisations, "many": len(organisations), "rows": rows, "days": DAYS}
    with psycopg.connect(f"{place.postgres.url}/{database}", autocommit=True) as connection:
        today = connection.execute(TODAY).fetchone()
        assert today is not None
        connection.execute(FILL, given | {"today": today[0]})
        connection.execute("VACUUM ANALYZE seen")
    return database


def measure(place: World, runs: Runs, point: Point, rounds: int) -> Figure:
    """The median of the rounds."""
    found = []
    for _ in range(rounds):
        database = fill_seen(place, point.shape, point.seen) if point.seen else None
        found.append(runs.measure(OURSELVES, point.shape, database, point.workers))
        if database is not None:
            place.drop(database)
    return median(found)


def table(title: str, shape: Shape, found: list[tuple[str, Figure]]) -> results.Table:
    first = found[0][1].worker_us + found[0][1].postgres_us
    rows = [
        [
            name,
            f"{figure.events_per_second:,.0f}",
            f"{figure.worker_us:.1f}",
            f"{figure.postgres_us:.1f}",
            f"{(figure.worker_us + figure.postgres_us) / first:.2f}x",
            f"{figure.rss_most:.0f}",
        ]
        for name, figure in found
    ]
    note = f"But for that: {shape.label}; batches of 10,000 events. `of the first` is CPU of worker and PostgreSQL."
    return results.table(title, (title, *COLUMNS[1:]), rows, note)


def run(base: Shape, rounds: int, chosen: Callable[[str], bool]) -> Iterator[tuple[results.Table, dict[str, Figure]]]:
    """Each table on servers of its own, so that what one has filled is not the next one's."""
    for title, theirs in grown(base).items():
        if not chosen(title):
            continue
        with world() as place:
            runs = Runs(place)
            found = [(point.name, measure(place, runs, point, rounds)) for point in theirs.points]
        yield table(title, theirs.base, found), dict(found)


@click.command()
@click.option("--events", default=200_000, show_default=True, help="In each topic.")
@click.option("--job", default="full", show_default=True, type=click.Choice(["bare", "full"]))
@click.option("--rounds", default=1, show_default=True, help="Runs of each.")
@click.option("--only", help="Only tables whose titles hold this text.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON of the run, such as bench/results/growth.json.")
def main(events: int, job: Job, rounds: int, only: str | None, out: Path | None) -> None:
    """Vary one thing and leave the others."""
    console = Console(width=160)
    tables, raw = [], {}
    for made, figures in run(Shape(job, events), rounds, lambda title: (only or "").lower() in title.lower()):
        show(console, made)
        tables.append(made)
        raw[made["title"]] = {name: figure._asdict() for name, figure in figures.items()}
        if out is not None:  # a run is long: what is measured is not lost with what comes later
            command = " ".join(["python -m bench.growth", *sys.argv[1:]])
            results.write(out, "How the worker's cost grows", command, tables, measured=raw)


if __name__ == "__main__":
    main()
