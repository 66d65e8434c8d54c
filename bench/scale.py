"""What an installation needs at a rate, from the figures of bench/results/: the table of docs/scale.md."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.edge_subjects import OURS
from bench.results import FOLDER, Table, table
from bench.worker_subjects import OURSELVES

RATES = (10_000, 100_000, 1_000_000)
PER_REQUEST = (1, 10, 50)
BUSY = 0.5
"""How much of a core is used in the plan: the rest is for peaks, catching up and the loss of a machine."""


class Costs(NamedTuple):
    """CPU microseconds: of a request of 1 and of 50 events for the edge, of an event for the worker and its store."""

    request_1: float
    request_50: float
    worker: float
    postgres: float

    def edge(self, events: int) -> float:
        """An event's share of a request of so many, on the straight line through the two that were measured."""
        slope = (self.request_50 - self.request_1) / 49
        return (self.request_1 + slope * (events - 1)) / events


def costs(folder: Path = FOLDER) -> Costs | None:
    """None where the edge or the worker has not been measured."""
    edge, worker = folder / "edge.json", folder / "worker.json"
    if not (edge.exists() and worker.exists()):
        return None
    of_edge, full = json.loads(edge.read_text()), _full(json.loads(worker.read_text()))
    one, fifty = _edge(of_edge, 1), _edge(of_edge, 50)
    return Costs(one, fifty, *(median(run[name] for run in full) for name in ("worker_us", "postgres_us")))


def plan(found: Costs) -> Table:
    """Cores at each rate."""
    edges = [f"edge, {n} event{'s' if n > 1 else ''} a request" for n in PER_REQUEST]
    rows = [
        [
            f"{rate:,}",
            *[_cores(rate, found.edge(events)) for events in PER_REQUEST],
            _cores(rate, found.worker),
            _cores(rate, found.postgres),
        ]
        for rate in RATES
    ]
    note = f"Each core is {BUSY:.0%} busy. An edge and a worker have one each; there are as many partitions as workers."
    return table("Cores at a rate", ["events/s", *edges, "workers", "PostgreSQL"], rows, note)


def _cores(rate: int, microseconds: float) -> str:
    return f"{max(1, math.ceil(rate * microseconds / 1e6 / BUSY)):,}"


def _edge(results: Mapping[str, Any], events: int) -> float:
    for measured in results["measured"]:
        load = measured["load"]
        if load["events"] == events and not load["gzip"] and load["organisations"] == 100:
            rounds: Sequence[Mapping[str, float]] = measured["rounds"][OURS]
            return median(one["user"] + one["system"] for one in rounds)
    raise ValueError(f"the edge was not measured with {events} events a request")


def _full(results: Mapping[str, Any]) -> Sequence[Mapping[str, float]]:
    for measured in results["measured"]:
        if measured["topic"]["job"] == "full" and measured["topic"]["per_record"] == 10:
            runs: Sequence[Mapping[str, float]] = measured["runs"][OURSELVES.name]
            return runs
    raise ValueError("the worker was not measured with everything on")
