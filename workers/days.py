"""The cells of days beside those of quarters. Pure.

A day that is open has none added: its quarters are what readers add up, and when it is over they are summed up once.
That halves the rows of most batches, since most events are of today.
"""

from collections.abc import Callable, Mapping, Set
from operator import add, or_
from typing import TypeVar

from schemas import sketches
from schemas.tables import DAY
from workers.fold import KIND, Cell, Folded, Users

Day = tuple[str, str, int]
"""Organisation, flow, and the epoch second at which the UTC day begins."""

V = TypeVar("V")


def days_of(folded: Folded) -> set[Day]:
    """Those that a batch adds to."""
    tables = (folded.counts, folded.custom_events, folded.cohorts, folded.cohort_steps, folded.sketches)
    return {_day(cell) for cells in tables for cell in cells}


def add_days(folded: Folded, still_open: Set[Day]) -> None:
    """Adds the cells of the days that are not open."""
    for cells in (folded.counts, folded.custom_events, folded.cohorts, folded.cohort_steps):
        days = _days(cells, still_open, lambda some, more: [a + b for a, b in zip(some, more, strict=True)])
        cells |= {cell: added for cell, added in days.items() if any(added)}
    people: dict[Cell, Users] = {}
    seconds: dict[Cell, list[float]] = {}
    for cell, added in folded.sketches.items():
        (seconds if cell[KIND] == sketches.SECONDS else people)[cell] = added
    folded.sketches |= _days(people, still_open, or_) | _days(seconds, still_open, add)


def _day(cell: Cell) -> Day:
    return cell[0], cell[1], cell[3] // DAY * DAY


def _days(quarters: Mapping[Cell, V], still_open: Set[Day], together: Callable[[V, V], V]) -> dict[Cell, V]:
    days: dict[Cell, V] = {}
    for cell, added in quarters.items():
        day = _day(cell)
        if day not in still_open:
            key = (day[0], day[1], DAY, day[2], *cell[4:])
            days[key] = together(days[key], added) if key in days else added
    return days
