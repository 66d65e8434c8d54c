"""The shape of a results file: what was measured, how, on what, and the tables that bench/report.py renders from it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from bench.machine import facts

FOLDER = Path(__file__).with_name("results")


class Table(TypedDict):
    """Cells are shown as they are; a number is given as text, with the digits that mean something."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str
    headline: bool  # whether README.md shows it too


class Results(TypedDict):
    """A file may hold more, such as every sample, which is not rendered."""

    title: str
    command: str
    date: str
    machine: dict[str, object]
    tables: list[Table]


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "", headline: bool = False
) -> Table:
    cells = [[str(cell) for cell in row] for row in rows]
    return {"title": title, "columns": list(columns), "rows": cells, "note": note, "headline": headline}


def write(path: Path, title: str, command: str, tables: Sequence[Table], **raw: Any) -> None:
    """`command` is what makes the file again. `raw` is what the tables were made from."""
    results: Results = {
        "title": title,
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        "machine": facts(),
        "tables": list(tables),
    }
    path.write_text(json.dumps({**results, **raw}, indent=1) + "\n")


def read(path: Path) -> Results | None:
    """None where the file has no tables, since what made it prints its own."""
    found: Results = json.loads(path.read_text())
    return found if "tables" in found else None
