"""The cells of days beside those of quarters. Pure.

A day that is open has none added: its quarters are what readers add up, and when it is over they are summed up once.
That halves the rows of most batches, since most events are of today.
"""

from collections.abc import Callable, Mapping, Set
from typing import Any, TypeVar

from schemas.tables import DAY
from workers.fold import Cell, Folded

Day = tuple[str, str, int]
"""Organisation, flow, and the epoch second at which the UTC day begins."""

V = TypeVar("V")


def days_of(folded: Folded) -> set[Day]:
    """Those that a batch adds to."""
    return {_day(cell) for added in folded.cells.values() for cells in added for cell in cells}


def add_days(folded: Folded, still_open: Set[Day]) -> None:
    """Adds the cells of the days that are not open."""
    for added in folded.cells.values():
        days = _days(added.counters, still_open, lambda some, more: [a + b for a, b in zip(some, more, strict=True)])
        added.counters.update({cell: sums for cell, sums in days.items() if any(sums)})
        added.values.update(_days(added.values, still_open, _together))


def _together(some: Any, more: Any) -> Any:
    """Users, or seconds."""
    return some | more if isinstance(some, dict) else some + more


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
