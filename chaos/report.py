"""What a run found, as JSON and as a table: `python -m chaos.report FILE`."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from chaos.rounds import Round

SUMS = ("requests", "tries", "sent", "acknowledged", "counted", "duplicates", "rejected", "lost", "doubled")

WIDTH = 160


class Run(msgspec.Struct):
    """A run of the harness: where, with what, and every round."""

    date: str
    seed: int
    settings: dict[str, Any]
    machine: dict[str, Any]
    rounds: list[Round] = []

    @property
    def good(self) -> bool:
        return all(one.good for one in self.rounds)


def totals(run: Run) -> dict[str, Any]:
    """Sums over the rounds, and the faults by kind and what they struck."""
    by_kind = Counter(fault.kind for one in run.rounds for fault in one.faults)
    by_target = Counter(f"{fault.kind} {fault.target}" for one in run.rounds for fault in one.faults)
    return {
        "rounds": len(run.rounds),
        "failed": [one.number for one in run.rounds if not one.good],
        **{name: sum(getattr(one, name) for one in run.rounds) for name in SUMS},
        "longest_recovery_seconds": max((one.recovery_seconds for one in run.rounds), default=0.0),
        "seconds": round(sum(one.seconds for one in run.rounds), 1),
        "faults": dict(sorted(by_kind.items())),
        "faults_by_target": dict(sorted(by_target.items())),
    }


def write(run: Run, path: Path) -> None:
    """Replaces the file."""
    document = {"totals": totals(run), **msgspec.to_builtins(run)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def read(path: Path) -> Run:
    """Raises msgspec.DecodeError for a file of another kind."""
    return msgspec.json.decode(path.read_bytes(), type=Run)


def row(one: Round) -> list[str]:
    """A round as the table has it."""
    numbers = [one.sent, one.acknowledged, one.counted, one.duplicates, one.rejected, one.lost, one.doubled]
    return [
        str(one.number),
        "\n".join(map(str, one.faults)),
        *(f"{n:,}" for n in numbers),
        f"{one.recovery_seconds:.1f} s",
        f"{one.seconds:.0f} s",
        "ok" if one.good else "FAILED",
    ]


COLUMNS = (
    *("round", "faults", "events", "2xx", "counted", "duplicate", "rejected", "lost", "doubled"),
    *("recovery", "took", ""),
)


def console() -> Console:
    """Wide enough for the table where it is not a terminal's width that counts."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def render(run: Run, console: Console) -> None:
    """The rounds, the sums, the faults by kind, and what was wrong."""
    table = Table(*COLUMNS, title=f"seed {run.seed}, {run.date}")
    for one in run.rounds:
        table.add_row(*row(one))
    console.print(table)
    sums = totals(run)
    faults = ", ".join(f"{kind} {n}" for kind, n in sums["faults"].items())
    console.print(
        f"{sums['rounds']} rounds in {sums['seconds'] / 60:.0f} min; {faults or 'no faults'}.\n"
        f"{sums['sent']:,} events sent in {sums['requests']:,} requests and {sums['tries']:,} tries, "
        f"{sums['acknowledged']:,} with a 2xx; {sums['counted']:,} counted, {sums['duplicates']:,} duplicates, "
        f"{sums['rejected']:,} rejected.\n"
        f"Lost {sums['lost']:,}, doubled {sums['doubled']:,}; "
        f"longest recovery {sums['longest_recovery_seconds']:.1f} s."
    )
    for one in run.rounds:
        for problem in one.problems:
            console.print(f"round {one.number}: {problem}", style="red", markup=False)


@click.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(path: Path) -> None:
    """Show a run that was written before."""
    render(read(path), console())


if __name__ == "__main__":
    main()
