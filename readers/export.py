"""The same numbers as CSV: by interval a row for the flow and one for each of its steps, a few intervals at a time."""

import csv
import io
import re
from collections.abc import Iterator, Sequence

from backends.store.catalog import Flow
from readers.analytics import COUNTS, Cells, ReadCells, chunks, steps, totals
from readers.ranges import Interval, Range

COLUMNS = (
    "start",
    "stepPosition",
    "stepId",
    "stepName",
    *COUNTS,
    "sessions",
    "uniqueUsers",
    "dropOff",
    "dropOffRate",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def rows(flow: Flow, chosen: Range, read: ReadCells) -> Iterator[bytes]:
    """RFC 4180: the header with the first few intervals, so that a store that is away shows before a byte is sent."""
    header: list[Sequence[object]] = [COLUMNS]
    for chunk in chunks(chosen, read):
        yield _lines(header + _table(flow, chosen, chunk))
        header = []


def file_name(flow: Flow, chosen: Range) -> str:
    """Letters, digits and dashes only: it stands in a header."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", flow.name).strip("-").lower()[:60] or "flow"
    return f"{name}-{chosen.local(chosen.start)[:10]}-{chosen.local(chosen.end - 1)[:10]}.csv"


def cell(value: object) -> str:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _table(flow: Flow, chosen: Range, chunk: list[tuple[Interval, Cells]]) -> list[Sequence[object]]:
    found: list[Sequence[object]] = []
    for interval, cells in chunk:
        start = chosen.local(interval.start)
        whole = totals(cells)
        found.append([start, "", "", "", *(whole[name] for name in (*COUNTS, "sessions", "uniqueUsers")), "", ""])
        for step in steps(cells, flow):
            numbers = (step[name] for name in (*COUNTS, "sessions", "uniqueUsers", "dropOff", "dropOffRate"))
            found.append([start, step["position"], step["stepId"], step["name"], *numbers])
    return found


def _lines(table: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([cell(value) for value in row] for row in table)
    return text.getvalue().encode()
