"""Holds the ratios to bench/bounds.json: `python -m bench.quick`. Ends with 1 where one is worse, or has no bound."""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypedDict

import click
from rich.console import Console
from rich.table import Table

BOUNDS = Path(__file__).with_name("bounds.json")
PARTS = {"edge": "bench.edge_quick", "worker": "bench.worker_quick"}
"""Modules with `ratios() -> dict[str, float]`; the names of their ratios begin with the part's."""


class Bound(TypedDict, total=False):
    """`what` the ratio is, and the `most` or the `least` that it may be."""

    what: str
    most: float
    least: float


class Judged(NamedTuple):
    """A ratio beside its bound. One that was not measured is not held."""

    name: str
    what: str
    ratio: float | None
    bound: str
    held: bool


def judge(found: Mapping[str, float], bounds: Mapping[str, Bound]) -> list[Judged]:
    """Every bound, then every ratio without one, which is a mistake of its own."""
    judged = []
    for name, bound in bounds.items():
        ratio = found.get(name)
        within = ratio is not None and bound.get("least", ratio) <= ratio <= bound.get("most", ratio)
        said = " ".join(f"{side} {bound[side]:g}" for side in ("least", "most") if side in bound)
        judged.append(Judged(name, bound["what"], ratio, said, within))
    unknown = [name for name in found if name not in bounds]
    return judged + [Judged(name, "", found[name], "none", False) for name in unknown]


def judge_part(part: str, bounds: Mapping[str, Bound]) -> list[Judged]:
    """Measured again where one is worse: a machine's bad minute passes, and a change for the worse does not."""
    ratios: Callable[[], dict[str, float]] = importlib.import_module(PARTS[part]).ratios
    of_part = {name: bound for name, bound in bounds.items() if name.startswith(part)}
    judged = judge(ratios(), of_part)
    return judged if all(one.held for one in judged) else judge(ratios(), of_part)


@click.command()
@click.option("--part", "parts", type=click.Choice(list(PARTS)), multiple=True, help="Only this part.")
def main(parts: tuple[str, ...]) -> None:
    """Measure the ratios and compare them with their bounds."""
    bounds: dict[str, Bound] = json.loads(BOUNDS.read_text())
    judged = [one for part in parts or tuple(PARTS) for one in judge_part(part, bounds)]
    table = Table("ratio", "what it is", "measured", "bound", "")
    for one in judged:
        measured = "" if one.ratio is None else f"{one.ratio:.3f}"
        table.add_row(one.name, one.what, measured, one.bound, "" if one.held else "worse")
    Console(width=140).print(table)
    sys.exit(0 if all(one.held for one in judged) else 1)


if __name__ == "__main__":
    main()
