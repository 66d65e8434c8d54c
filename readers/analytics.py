"""The numbers of a flow, put together from cells. Pure.

`views` and `completions` of the totals count events of the whole flow; `skips` and `dismissals` those of the flow and
of its steps, since a user leaves at a step. Rates belong to the cohort of sessions that started in the range, so none
passes 1, and the numbers of two adjacent ranges add up to those of their union (unique users and the median apart,
which come from sketches that merge). A session starts with its first view of the flow or of any step of it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from backends.store.catalog import Flow
from readers.ranges import Interval, Range
from schemas import sketches
from schemas.tables import NO_STEP

Row = Mapping[Any, Any]
COUNTS = ("views", "completions", "skips", "dismissals")
CHUNK = 24


class Cells(NamedTuple):
    """The rows of one stretch of time, by table."""

    counts: Sequence[Row]
    cohorts: Sequence[Row]
    custom_events: Sequence[Row] = ()


def totals(cells: Cells) -> dict[str, Any]:
    """Of the whole flow."""
    cohort = _sum(cells.cohorts, ("sessions", "starts", "completed", "dismissed"))
    return {
        **_flow_numbers(cells),
        "completionRate": _rate(cohort["completed"], cohort["starts"]),
        "dismissRate": _rate(cohort["dismissed"], cohort["starts"]),
        "medianSecondsToComplete": sketches.median(_sketches(cells.cohorts, "seconds")),
    }


def steps(cells: Cells, flow: Flow) -> list[dict[str, Any]]:
    """Of each step, in order; steps without events are there with zeros."""
    found = []
    for step in flow.steps:
        of_step = [row for row in cells.counts if row["step_id"] == step.step_id]
        cohort = _sum(of_step, ("sessions", "dropped"))
        found.append(
            {
                "stepId": step.step_id,
                "position": step.position,
                "name": step.name,
                **_sum(of_step, COUNTS),
                "sessions": cohort["sessions"],
                "uniqueUsers": sketches.count_users(_sketches(of_step, "users")),
                "dropOff": cohort["dropped"],
                "dropOffRate": _rate(cohort["dropped"], cohort["sessions"]),
            }
        )
    return found


ReadCells = Callable[[Sequence[Interval]], Cells]
"""Gives the cells of some intervals that follow each other; no boundary between two of them cuts a cell."""


def chunks(chosen: Range, read: ReadCells) -> Iterator[list[tuple[Interval, Cells]]]:
    """Each interval with its cells, a few read at a time and only when asked for: a long range needs no more memory."""
    for first in range(0, len(chosen.intervals), CHUNK):
        part = chosen.intervals[first : first + CHUNK]
        tables = [split(rows, part) for rows in read(part)]
        yield [(interval, Cells(*(table[n] for table in tables))) for n, interval in enumerate(part)]


def series(chosen: Range, read: ReadCells) -> list[dict[str, Any]]:
    """The whole flow's numbers by interval."""
    return [
        {"start": chosen.local(interval.start), **_flow_numbers(cells)}
        for chunk in chunks(chosen, read)
        for interval, cells in chunk
    ]


def split(rows: Iterable[Row], intervals: Sequence[Interval]) -> list[list[Row]]:
    """Rows by the interval their bucket lies in. Intervals follow each other without a gap."""
    found: list[list[Row]] = [[] for _ in intervals]
    at = 0
    for row in sorted(rows, key=lambda row: int(row["bucket"])):
        while at < len(intervals) and row["bucket"] >= intervals[at].end:
            at += 1
        if at == len(intervals):
            break
        if row["bucket"] >= intervals[at].start:
            found[at].append(row)
    return found


def custom_events(cells: Cells) -> list[dict[str, Any]]:
    """Custom events that name this flow or none, the most frequent first."""
    counts: Counter[str] = Counter()
    of_name: dict[str, list[Row]] = defaultdict(list)
    for row in cells.custom_events:
        counts[row["name"]] += row["events"]
        of_name[row["name"]].append(row)
    return [
        {"name": name, "count": count, "uniqueUsers": sketches.count_users(_sketches(of_name[name], "users"))}
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def document(
    flow: Flow, chosen: Range, whole: Cells, by_interval: list[dict[str, Any]], through: int | None, now: int
) -> dict[str, Any]:
    """The answer of GET /flows/{id}/analytics, with the `series` made before. `through` and `now` are epoch ms."""
    return {
        "flowId": flow.flow_id,
        "flowName": flow.name,
        "flowType": flow.type,
        "from": chosen.local(chosen.start),
        "to": chosen.local(chosen.end),
        "interval": chosen.interval,
        "timezone": str(chosen.zone),
        "totals": totals(whole),
        "steps": steps(whole, flow),
        "series": by_interval,
        "customEvents": custom_events(whole),
        "processedThrough": _utc(through) if through else None,
        "lagSeconds": max(0, now - through) / 1000 if through else None,
    }


def _flow_numbers(cells: Cells) -> dict[str, int]:
    of_flow = [row for row in cells.counts if row["step_id"] == NO_STEP]
    whole = _sum(of_flow, COUNTS)
    anywhere = _sum(cells.counts, COUNTS)
    cohort = _sum(cells.cohorts, ("sessions", "starts"))
    return {
        "views": whole["views"],
        "starts": cohort["starts"],
        "completions": whole["completions"],
        "dismissals": anywhere["dismissals"],
        "skips": anywhere["skips"],
        "sessions": cohort["sessions"],
        "uniqueUsers": sketches.count_users(_sketches(of_flow, "users")),
    }


def _sketches(rows: Iterable[Row], name: str) -> Iterator[bytes]:
    return (row[name] for row in rows if row[name] is not None)


def _sum(rows: Iterable[Row], names: Sequence[str]) -> dict[str, int]:
    sums = dict.fromkeys(names, 0)
    for row in rows:
        for name in names:
            sums[name] += int(row[name])
    return sums


def _rate(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _utc(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
