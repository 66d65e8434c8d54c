"""Ranges: what the parameters mean, and the cells and intervals a range is made of, in every zone and on every day."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readers.ranges import MAX_DAYS, BadRange, Problem, Range, Span, parse, spans, spans_of
from schemas.tables import DAY, QUARTER

NOW = datetime(2026, 7, 15, 13, 37, 42, tzinfo=UTC)
THOROUGH = settings(deadline=None)
NOT_A_TIME = "Expected a date, or an ISO 8601 time with offset"


def chosen(
    start: str | None = None, end: str | None = None, interval: str | None = None, timezone: str | None = None
) -> Range:
    return parse(start, end, interval, timezone, NOW)


def problems(
    start: str | None = None, end: str | None = None, interval: str | None = None, timezone: str | None = None
) -> list[Problem]:
    with pytest.raises(BadRange) as caught:
        chosen(start, end, interval, timezone)
    return caught.value.problems


def bounds(of: Range) -> tuple[str, str]:
    return of.local(of.start), of.local(of.end)


def lengths(of: Range) -> list[float]:
    """Of the intervals, in hours."""
    return [(interval.end - interval.start) / 3600 for interval in of.intervals]


def starts(of: Range) -> list[str]:
    return [of.local(interval.start) for interval in of.intervals]


# Defaults


def test_without_parameters_it_is_the_thirty_utc_days_that_end_with_today() -> None:
    found = chosen()
    assert bounds(found) == ("2026-06-16T00:00:00+00:00", "2026-07-16T00:00:00+00:00")
    assert (found.interval, str(found.zone), len(found.intervals)) == ("day", "UTC", 30)


def test_today_is_the_zones_today() -> None:
    assert bounds(chosen(timezone="Pacific/Kiritimati"))[1] == "2026-07-17T00:00:00+14:00"
    assert bounds(chosen(timezone="Pacific/Pago_Pago"))[1] == "2026-07-16T00:00:00-11:00"


def test_by_hour_the_default_is_thirty_days_as_well() -> None:
    found = chosen(interval="hour")
    assert bounds(found) == bounds(chosen())
    assert len(found.intervals) == 30 * 24


def test_only_an_end_means_the_thirty_days_before_it() -> None:
    assert bounds(chosen(end="2026-03-03")) == ("2026-02-01T00:00:00+00:00", "2026-03-03T00:00:00+00:00")
    assert bounds(chosen(end="2026-03-03T12:00:00Z"))[0] == "2026-02-02T00:00:00+00:00"


def test_only_a_beginning_means_until_the_end_of_today() -> None:
    assert bounds(chosen("2026-07-01")) == ("2026-07-01T00:00:00+00:00", "2026-07-16T00:00:00+00:00")


def test_the_default_thirty_days_are_local_days_where_clocks_change() -> None:
    found = chosen(end="2026-04-05", timezone="Europe/Berlin")
    assert bounds(found) == ("2026-03-06T00:00:00+01:00", "2026-04-05T00:00:00+02:00")
    assert len(found.intervals) == 30


# What a bound may be


def test_a_date_is_its_midnight_in_the_zone() -> None:
    found = chosen("2026-05-01", "2026-05-02", timezone="America/New_York")
    assert bounds(found) == ("2026-05-01T00:00:00-04:00", "2026-05-02T00:00:00-04:00")


def test_a_time_with_an_offset_is_that_instant_whatever_the_zone() -> None:
    found = chosen("2026-05-01T00:00:00Z", "2026-05-01T12:30:00+02:00", timezone="Asia/Tokyo")
    assert bounds(found) == ("2026-05-01T09:00:00+09:00", "2026-05-01T19:30:00+09:00")


def test_the_end_is_exclusive() -> None:
    assert starts(chosen("2026-05-01", "2026-05-03")) == ["2026-05-01T00:00:00+00:00", "2026-05-02T00:00:00+00:00"]


def test_the_first_and_last_day_may_be_part_of_a_day() -> None:
    found = chosen("2026-05-01T18:15:00Z", "2026-05-03T06:00:00Z")
    assert lengths(found) == [5.75, 24, 6]


# Days and hours of a clock that changes


def test_a_day_has_23_hours_where_clocks_go_forward_and_25_where_they_go_back() -> None:
    assert lengths(chosen("2026-03-28", "2026-03-31", timezone="Europe/Berlin")) == [24, 23, 24]
    assert lengths(chosen("2026-10-24", "2026-10-27", timezone="Europe/Berlin")) == [24, 25, 24]
    assert len(chosen("2026-03-29", "2026-03-30", "hour", "Europe/Berlin").intervals) == 23


def test_an_hour_that_comes_twice_is_two_hours_told_apart_by_their_offsets() -> None:
    found = chosen("2026-10-25", "2026-10-26", "hour", "Europe/Berlin")
    assert len(found.intervals) == 25
    assert starts(found)[2:4] == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]


def test_lord_howe_moves_its_clocks_by_half_an_hour() -> None:
    assert lengths(chosen("2026-04-04", "2026-04-07", timezone="Australia/Lord_Howe")) == [24, 24.5, 24]
    assert lengths(chosen("2026-10-03", "2026-10-06", timezone="Australia/Lord_Howe")) == [24, 23.5, 24]
    hours = chosen("2026-04-05", "2026-04-06", "hour", "Australia/Lord_Howe")
    assert starts(hours)[1:4] == [
        "2026-04-05T01:00:00+11:00",
        "2026-04-05T01:30:00+10:30",
        "2026-04-05T02:00:00+10:30",
    ]


def test_an_hour_ends_early_where_the_clock_changes_within_it() -> None:
    """On Chatham 03:45 becomes 02:45: no hour may hold both sides of that."""
    hours = chosen("2026-04-05", "2026-04-06", "hour", "Pacific/Chatham")
    assert starts(hours)[2:6] == [
        "2026-04-05T02:00:00+13:45",
        "2026-04-05T03:00:00+13:45",
        "2026-04-05T02:45:00+12:45",
        "2026-04-05T03:00:00+12:45",
    ]
    assert lengths(hours)[2:6] == [1, 0.75, 0.25, 1]


@pytest.mark.parametrize("name", ["Asia/Kolkata", "Asia/Kathmandu", "Pacific/Marquesas", "Australia/Eucla"])
def test_zones_off_the_hour_have_whole_days_and_hours_of_their_own(name: str) -> None:
    days = chosen("2026-05-01", "2026-05-04", timezone=name)
    assert lengths(days) == [24, 24, 24]
    assert all(start[11:19] == "00:00:00" for start in starts(days))
    hours = chosen("2026-05-01", "2026-05-02", "hour", name)
    assert [start[11:19] for start in starts(hours)] == [f"{hour:02}:00:00" for hour in range(24)]


def test_a_day_whose_midnight_is_skipped_begins_with_its_first_instant() -> None:
    """In Cairo the clock goes from 23:59 on Thursday to 01:00 on Friday."""
    found = chosen("2026-04-23", "2026-04-26", timezone="Africa/Cairo")
    assert starts(found) == ["2026-04-23T00:00:00+02:00", "2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00"]
    assert lengths(found) == [24, 23, 24]
    assert bounds(chosen("2026-04-24", "2026-04-25", timezone="Africa/Cairo"))[0] == "2026-04-24T01:00:00+03:00"


def test_a_day_that_a_country_left_out_is_not_there() -> None:
    found = chosen("2011-12-29", "2012-01-01", timezone="Pacific/Apia")
    assert starts(found) == ["2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"]


def test_clocks_that_go_back_over_a_midnight_keep_the_days_in_order() -> None:
    """In Newfoundland 00:01 once became 23:01 of the day before."""
    whole = chosen("2010-11-06", "2010-11-09", timezone="America/St_Johns")
    assert lengths(whole) == [24, 25, 24]
    within = chosen("2010-11-07T02:45:00Z", "2010-11-09", timezone="America/St_Johns")
    assert [i.end for i in within.intervals[:-1]] == [i.start for i in within.intervals[1:]]
    assert all(i.start < i.end for i in within.intervals)


# Limits


def test_four_hundred_days_are_the_most_and_thirty_one_by_hour() -> None:
    assert len(chosen("2025-06-11", "2026-07-16").intervals) == 400
    assert problems("2025-06-10", "2026-07-16") == [Problem("to", "Expected at most 400 days with interval=day")]
    assert len(chosen("2026-05-01", "2026-06-01", "hour").intervals) == 31 * 24
    assert problems("2026-05-01", "2026-06-02", "hour") == [
        Problem("to", "Expected at most 31 days with interval=hour")
    ]
    assert problems("2026-05-01", "2026-06-01T00:15:00Z", "hour")[0].path == "to"


@pytest.mark.parametrize("name", ["Europe/Berlin", "Antarctica/Troll", "Australia/Lord_Howe"])
def test_the_limits_are_local_days_where_clocks_go_back_within_them(name: str) -> None:
    assert len(chosen("2026-03-20", "2026-04-20", "hour", name).intervals) > 700
    assert len(chosen("2026-10-10", "2026-11-10", "hour", name).intervals) > 700
    assert problems("2026-10-10", "2026-11-11", "hour", name)[0].path == "to"


def test_thirty_one_days_to_the_second_are_allowed_where_clocks_go_forward_within_them() -> None:
    assert lengths(chosen("2026-03-15T00:00:00Z", "2026-04-15T00:00:00Z", "hour", "Europe/Berlin"))[-1] == 1


# What is refused


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-13-01",
        "2026-02-30",
        "2026-05-01T00:00:00",  # no offset
        "2026-05-01T00:00:00 02:00",  # a plus that was not escaped
        "20260501",
        "1780272000000",
        "2026-05-01T25:00:00Z",
        "\uff12026-05-01",  # a full-width digit
        "2026-05-01\0",
        "9" * 5000,
    ],
)
def test_what_is_not_a_date_or_a_time_with_offset_is_named(text: str) -> None:
    assert problems(start=text) == [Problem("from", NOT_A_TIME)]
    assert problems(end=text) == [Problem("to", NOT_A_TIME)]


def test_a_time_must_lie_on_a_quarter_of_an_hour() -> None:
    expected = "Expected a time on a quarter of an hour"
    for text in ("2026-05-01T00:10:00Z", "2026-05-01T00:15:01Z", "2026-05-01T00:15:00.5Z"):
        assert problems(start=text) == [Problem("from", expected)]
    assert lengths(chosen("2026-05-01T00:15:00+05:45", "2026-05-01T01:00:00+05:45")) == [0.75]


@pytest.mark.parametrize(
    "text",
    ["0001-01-01", "0001-01-15T00:00:00+00:00", "1969-12-31", "1999-12-31", "9999-12-31", "9999-06-01T00:00:00Z"],
)
@pytest.mark.parametrize("name", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_times_before_there_was_anything_or_after_dates_end_are_named(text: str, name: str) -> None:
    expected = "Expected a time from 2000 to 9998"
    for found, path in (
        (problems(start=text, timezone=name), "from"),
        (problems(end=text, timezone=name), "to"),
    ):
        assert found in ([Problem(path, expected)], [Problem(path, NOT_A_TIME)])


@pytest.mark.parametrize("name", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_first_and_last_times_that_are_taken_give_a_range(name: str) -> None:
    assert chosen("2000-01-02", "2000-01-04", "hour", name).intervals
    assert chosen("9998-12-28", "9998-12-31", "hour", name).intervals
    assert chosen(end="2000-01-05", timezone=name).start == int(datetime(2000, 1, 1, tzinfo=UTC).timestamp())


def test_an_unknown_interval_is_named() -> None:
    assert problems(interval="week") == [Problem("interval", "Expected hour or day")]
    assert problems(interval="HOUR") == [Problem("interval", "Expected hour or day")]


@pytest.mark.parametrize("name", ["Mars/Olympus", "CEST", "+02:00", "../../etc/passwd", "/etc/localtime", "UTC\0"])
def test_an_unknown_zone_is_named(name: str) -> None:
    assert problems(timezone=name) == [Problem("timezone", "Expected an IANA time zone")]


def test_an_end_that_is_not_after_its_beginning_is_named() -> None:
    expected = [Problem("to", "Expected a time after from")]
    assert problems("2026-05-02", "2026-05-01") == expected
    assert problems("2026-05-01", "2026-05-01") == expected
    assert problems("2026-07-17") == expected  # tomorrow is not yet


def test_every_bad_parameter_is_named_at_once() -> None:
    found = problems("soon", "later", "week", "Nowhere")
    assert sorted(problem.path for problem in found) == ["from", "interval", "timezone", "to"]


# Whatever the range


def test_every_zones_days_begin_on_a_quarter_of_an_hour() -> None:
    """What the store's cells rest on. A zone that breaks it must be known before its users see wrong days."""
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        for year in range(2000, 2038):
            for month in range(1, 13):
                offset = datetime(year, month, 1, tzinfo=zone).utcoffset()
                assert offset is not None
                assert offset % timedelta(seconds=QUARTER) == timedelta(0), (name, year, month)


ZONES = st.sampled_from(
    [
        *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"),
        *("Pacific/Chatham", "Pacific/Kiritimati", "Africa/Cairo", "Asia/Beirut", "America/Havana", "America/Santiago"),
        *("Antarctica/Troll", "Africa/Casablanca", "Asia/Gaza", "America/St_Johns"),
    ]
)
QUARTERS = st.integers(1_262_304_000 // QUARTER, 1_893_456_000 // QUARTER)  # 2010 to 2030


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    interval = draw(st.sampled_from(["day", "hour"]))
    start = draw(QUARTERS) * QUARTER
    longest = draw(st.sampled_from([4, 100, MAX_DAYS[interval] * 96]))
    end = start + draw(st.integers(1, longest)) * QUARTER
    since, until = (datetime.fromtimestamp(at, UTC).isoformat() for at in (start, end))
    return chosen(since, until, interval, draw(ZONES))


def cells(of: list[Span]) -> list[tuple[int, int]]:
    """Every cell of these spans as [start, end)."""
    return [(at, at + span.grain) for span in of for at in range(span.start, span.end, span.grain)]


OPEN = st.sets(st.integers(-1, 501), max_size=5)
"""Days, counted from the one in which a range begins."""


def opened(since: int, days: set[int]) -> set[int]:
    return {since // DAY * DAY + day * DAY for day in days}


@THOROUGH
@given(start=QUARTERS, length=st.integers(0, 500 * 96), days=OPEN)
def test_spans_cover_the_range_exactly_and_no_instant_twice(start: int, length: int, days: set[int]) -> None:
    since, until = start * QUARTER, (start + length) * QUARTER
    at = since
    for first, last in cells(spans(since, until, opened(since, days))):
        assert first == at
        at = last
    assert at == until


@THOROUGH
@given(start=QUARTERS, length=st.integers(0, 500 * 96), days=OPEN)
def test_spans_are_as_few_cells_as_there_can_be(start: int, length: int, days: set[int]) -> None:
    since, until = start * QUARTER, (start + length) * QUARTER
    found = spans(since, until, opened(since, days))
    quarters = [first for first, last in cells(found) if last - first == QUARTER]
    assert len([first for first in quarters if first // DAY * DAY not in opened(since, days)]) < 2 * 96
    assert all(span.start % span.grain == 0 and span.end % span.grain == 0 for span in found)
    assert all(a.grain != b.grain for a, b in pairwise(found))


@THOROUGH
@given(start=QUARTERS, length=st.integers(0, 500 * 96), days=OPEN)
def test_no_cell_of_an_open_day_is_read(start: int, length: int, days: set[int]) -> None:
    since, until = start * QUARTER, (start + length) * QUARTER
    found = cells(spans(since, until, opened(since, days)))
    assert not opened(since, days) & {first for first, last in found if last - first == DAY}


@THOROUGH
@given(ranges())
def test_intervals_follow_each_other_from_the_beginning_to_the_end(found: Range) -> None:
    assert found.intervals[0].start == found.start
    assert found.intervals[-1].end == found.end
    assert all(a.end == b.start for a, b in zip(found.intervals, found.intervals[1:], strict=False))
    assert all(i.start < i.end and i.start % QUARTER == 0 for i in found.intervals)


@THOROUGH
@given(ranges())
def test_no_interval_holds_two_local_days_or_two_local_hours(found: Range) -> None:
    for interval in found.intervals[:60]:
        local = {
            (at.date(), at.hour, at.utcoffset()) if found.interval == "hour" else (at.date(),)
            for at in (
                datetime.fromtimestamp(second, found.zone) for second in range(interval.start, interval.end, QUARTER)
            )
        }
        # In Newfoundland, until 2011, clocks went back just after midnight: a day with an evening of the one before.
        assert len(local) == 1 or str(found.zone) == "America/St_Johns"


@THOROUGH
@given(ranges())
def test_the_cells_of_intervals_are_cut_by_none_of_their_bounds(found: Range) -> None:
    made = spans_of(found.intervals, ())
    at = found.start
    edges = {interval.start for interval in found.intervals}
    for first, last in cells(made):
        assert first == at
        assert not any(edge in edges for edge in range(first + QUARTER, last, QUARTER))
        at = last
    assert at == found.end


def test_utc_days_are_read_as_one_span_of_days() -> None:
    found = chosen("2026-05-01", "2026-06-01")
    assert spans_of(found.intervals, ()) == [Span(DAY, found.start, found.end)]


def test_an_open_day_among_others_is_read_by_its_quarters() -> None:
    found = chosen("2026-05-01", "2026-06-01")
    last = found.end - DAY
    assert spans_of(found.intervals, {last}) == [Span(DAY, found.start, last), Span(QUARTER, last, found.end)]


def test_a_ragged_range_of_utc_days_is_read_by_quarters_only_at_its_ends() -> None:
    found = chosen("2026-05-01T06:00:00Z", "2026-05-31T18:00:00Z")
    assert [span.grain for span in spans_of(found.intervals, ())] == [QUARTER, DAY, QUARTER]


@THOROUGH
@given(day=st.dates(date(2010, 1, 1), date(2030, 1, 1)), zone=ZONES)
def test_a_local_day_lasts_from_22_to_26_hours_and_has_its_date(day: date, zone: str) -> None:
    found = chosen(day.isoformat(), (day + timedelta(days=1)).isoformat(), timezone=zone)
    assert len(found.intervals) == 1
    assert found.local(found.start)[:10] == day.isoformat()
    assert 22 <= lengths(found)[0] <= 26
