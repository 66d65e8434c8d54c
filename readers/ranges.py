"""The range of a query: its instants, its local days or hours, and the cells of the store that it is made of. Pure."""

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from schemas.tables import DAY, QUARTER

DEFAULT_DAYS = 30
MAX_DAYS = {"day": 400, "hour": 31}
# From 2000, since when every zone's days begin on a quarter of an hour, to a year before dates end.
_FIRST, _LAST = 946_684_800, 253_370_764_800
_ZONES = frozenset(available_timezones())


class Problem(NamedTuple):
    """One bad parameter and what is wrong with it."""

    path: str
    message: str


class BadRange(Exception):
    """Holds every problem with the parameters."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


class Interval(NamedTuple):
    """A local day or hour: [start, end) in epoch seconds. A day has 23 or 25 hours where clocks change."""

    start: int
    end: int


class Range(NamedTuple):
    """[start, end) in epoch seconds, cut into intervals. The first and last interval may be part of a day."""

    start: int
    end: int
    interval: str
    zone: ZoneInfo
    intervals: list[Interval]

    def local(self, at: int) -> str:
        """An instant as ISO 8601 with the zone's offset."""
        return datetime.fromtimestamp(at, self.zone).isoformat()


class Span(NamedTuple):
    """Cells of one grain with buckets in [start, end), epoch seconds."""

    grain: int
    start: int
    end: int


def parse(start: str | None, end: str | None, interval: str | None, timezone: str | None, now: datetime) -> Range:
    """The documented parameters `from`, `to`, `interval`, `timezone`. Raises BadRange with every problem.

    A date means its midnight in the zone; a time must have an offset and lie on a quarter of an hour, since the store
    counts by quarters (our decision). The default is the 30 days that end with today.
    """
    problems: list[Problem] = []
    chosen = interval or "day"
    if chosen not in MAX_DAYS:
        problems.append(Problem("interval", "Expected hour or day"))
        chosen = "day"
    name = timezone or "UTC"
    if name not in _ZONES:
        problems.append(Problem("timezone", "Expected an IANA time zone"))
        name = "UTC"
    zone = ZoneInfo(name)
    until = _instant("to", end, zone, problems)
    if until is None:
        until = _midnight(now.astimezone(zone).date() + timedelta(days=1), zone)
    since = _instant("from", start, zone, problems)
    if since is None:
        since = _midnight(datetime.fromtimestamp(until - 1, zone).date() - timedelta(days=DEFAULT_DAYS - 1), zone)
        since = max(_FIRST, since)
    if not problems and since >= until:
        problems.append(Problem("to", "Expected a time after from"))
    if not problems and _duration(since, until, zone) > timedelta(days=MAX_DAYS[chosen]):
        problems.append(Problem("to", f"Expected at most {MAX_DAYS[chosen]} days with interval={chosen}"))
    if problems:
        raise BadRange(problems)
    return Range(since, until, chosen, zone, list(_intervals(since, until, chosen, zone)))


def spans_of(intervals: Iterable[Interval], open_days: Collection[int]) -> list[Span]:
    """The fewest cells that make up these intervals and that no boundary between two of them cuts."""
    return _joined(span for interval in intervals for span in spans(*interval, open_days))


def spans(start: int, end: int, open_days: Collection[int]) -> list[Span]:
    """The fewest cells that make up [start, end): whole UTC days, and quarters at the ragged ends and of open days.

    `open_days` are the epoch seconds at which they begin.
    """
    first, last = -(-start // DAY) * DAY, end // DAY * DAY
    if first >= last:
        return [Span(QUARTER, start, end)] if start < end else []
    days = [Span(QUARTER if day in open_days else DAY, day, day + DAY) for day in range(first, last, DAY)]
    return _joined([Span(QUARTER, start, first), *days, Span(QUARTER, last, end)])


def _joined(spans: Iterable[Span]) -> list[Span]:
    """As few as there can be; they follow each other."""
    found: list[Span] = []
    for span in spans:
        if found and found[-1].grain == span.grain and found[-1].end == span.start:
            found[-1] = found[-1]._replace(end=span.end)
        elif span.start < span.end:
            found.append(span)
    return found


def _instant(path: str, text: str | None, zone: ZoneInfo, problems: list[Problem]) -> int | None:
    if text is None:
        return None
    seconds: float | None = None
    try:
        if len(text) == 10:
            seconds = _midnight(date.fromisoformat(text), zone)
        elif (parsed := datetime.fromisoformat(text)).tzinfo is not None:
            seconds = parsed.timestamp()
    except (ValueError, OverflowError):
        pass
    if seconds is None:
        problems.append(Problem(path, "Expected a date, or an ISO 8601 time with offset"))
    elif not _FIRST <= seconds <= _LAST:
        problems.append(Problem(path, "Expected a time from 2000 to 9998"))
    elif seconds % QUARTER:
        problems.append(Problem(path, "Expected a time on a quarter of an hour"))
    else:
        return int(seconds)
    return None


def _midnight(day: date, zone: ZoneInfo) -> int:
    """The instant a local day begins; where clocks skip midnight, the first instant there is."""
    local = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(local.astimezone(UTC).timestamp())


def _duration(start: int, end: int, zone: ZoneInfo) -> timedelta:
    """By the clock on the wall where that is shorter: 31 local days stay 31 days where clocks go back in them."""
    since, until = (datetime.fromtimestamp(at, zone).replace(tzinfo=None) for at in (start, end))
    return min(until - since, timedelta(seconds=end - start))


def _intervals(start: int, end: int, interval: str, zone: ZoneInfo) -> Iterator[Interval]:
    following = _next_day if interval == "day" else _next_hour
    at = start
    while at < end:
        until = min(end, following(at, zone))
        yield Interval(at, until)
        at = until


def _next_day(at: int, zone: ZoneInfo) -> int:
    day = datetime.fromtimestamp(at, zone).date()
    # Where clocks go back over a midnight, the evening's second pass lies after its midnight.
    return max(_midnight(day + timedelta(days=1), zone), at + QUARTER)


def _next_hour(at: int, zone: ZoneInfo) -> int:
    """The next full hour of the local clock, or the moment the clock changes, if that is within the hour."""
    local = datetime.fromtimestamp(at, zone)
    full = at + 3600 - (local.minute * 60 + local.second)
    quarters = range(at + QUARTER, full, QUARTER)
    changed = (q for q in quarters if datetime.fromtimestamp(q, zone).utcoffset() != local.utcoffset())
    return next(changed, full)
