"""The same numbers as CSV: by interval a row for the flow and one for each of its steps, a few intervals at a time."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence

from backends.store.catalog import Flow
from readers.analytics import COUNTS, Cells, split, steps, totals
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
CHUNK = 24
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def rows(flow: Flow, chosen: Range, cells: Callable[[int, int], Cells]) -> Iterator[bytes]:
    """RFC 4180, a chunk for every few intervals. `cells` gives the cells of [start, end), epoch seconds."""
    yield _lines([COLUMNS])
    for first in range(0, len(chosen.intervals), CHUNK):
        part = chosen.intervals[first : first + CHUNK]
        yield _chunk(flow, chosen, part, cells(part[0].start, part[-1].end))


def file_name(flow: Flow, chosen: Range) -> str:
    """Letters, digits and dashes only: it stands in a header."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", flow.name).strip("-").lower()[:60] or "flow"
    return f"{name}-{chosen.local(chosen.start)[:10]}-{chosen.local(chosen.end - 1)[:10]}.csv"


def cell(value: object) -> str:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _chunk(flow: Flow, chosen: Range, part: list[Interval], cells: Cells) -> bytes:
    found: list[list[object]] = []
    parts = [split(table, part) for table in cells]
    for n, interval in enumerate(part):
        of_interval = Cells(*(table[n] for table in parts))
        start = chosen.local(interval.start)
        whole = totals(of_interval)
        found.append([start, "", "", "", *(whole[name] for name in (*COUNTS, "sessions", "uniqueUsers")), "", ""])
        for step in steps(of_interval, flow):
            numbers = (step[name] for name in (*COUNTS, "sessions", "uniqueUsers", "dropOff", "dropOffRate"))
            found.append([start, step["position"], step["stepId"], step["name"], *numbers])
    return _lines(found)


def _lines(table: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([cell(value) for value in row] for row in table)
    return text.getvalue().encode()
