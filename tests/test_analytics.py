"""The sums behind the numbers, from rows made by hand."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.store.catalog import Flow, Step
from readers import analytics, ranges
from readers.analytics import CHUNK, Cells, Row
from readers.ranges import Interval, Range
from schemas import sketches
from schemas.tables import DAY, NO_STEP, QUARTER

STEPS = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"]
FLOW = Flow(
    "33333333-3333-4333-8333-333333333333",
    "44444444-4444-4444-8444-444444444444",
    "Onboarding",
    "tour",
    [Step(step, position, f"Step {position}") for position, step in enumerate(STEPS)],
)
START = 1_767_225_600  # 2026-01-01
NOTHING = Cells([], [])


def days(count: int, interval: str = "day") -> Range:
    start, end = (datetime.fromtimestamp(START + n * DAY, UTC).isoformat() for n in (0, count))
    return ranges.parse(start, end, interval, None, datetime.fromtimestamp(START, UTC))


def counts(step: str = NO_STEP, bucket: int = START, who: Iterable[str] = (), **numbers: int) -> Row:
    zeros = dict.fromkeys((*analytics.COUNTS, "sessions", "dropped"), 0)
    return zeros | numbers | {"step_id": step, "bucket": bucket, "users": users(who)}


def cohort(bucket: int = START, took: Iterable[float] = (), **numbers: int) -> Row:
    zeros = dict.fromkeys(("sessions", "starts", "completed", "dismissed"), 0)
    seconds = sketches.add_seconds(None, values) if (values := list(took)) else None
    return zeros | numbers | {"bucket": bucket, "seconds": seconds}


def custom(name: str, events: int, bucket: int = START, who: Iterable[str] = ()) -> Row:
    return {"name": name, "events": events, "bucket": bucket, "users": users(who)}


def users(who: Iterable[str]) -> bytes | None:
    return sketches.add_users(None, people) if (people := list(who)) else None


# Totals


def test_a_flow_without_events_is_all_zeros_and_divides_by_none() -> None:
    assert analytics.totals(NOTHING) == {
        "views": 0,
        "starts": 0,
        "completions": 0,
        "dismissals": 0,
        "skips": 0,
        "sessions": 0,
        "uniqueUsers": 0,
        "completionRate": 0.0,
        "dismissRate": 0.0,
        "medianSecondsToComplete": None,
    }


def test_views_and_completions_are_of_the_whole_flow_skips_and_dismissals_of_its_steps_too() -> None:
    cells = NOTHING._replace(
        counts=[
            counts(views=5, completions=2, skips=1, dismissals=1),
            counts(STEPS[0], views=50, completions=20, skips=10, dismissals=10),
            counts(STEPS[1], views=500, completions=200, skips=100, dismissals=100),
        ]
    )
    found = analytics.totals(cells)
    assert [found[name] for name in ("views", "completions", "skips", "dismissals")] == [5, 2, 111, 111]


def test_rates_are_of_the_cohort_whatever_was_counted_in_the_range() -> None:
    cells = NOTHING._replace(
        counts=[counts(views=3, completions=900, dismissals=900)],
        cohorts=[cohort(sessions=9, starts=4, completed=1), cohort(sessions=2, starts=2, completed=1, dismissed=2)],
    )
    found = analytics.totals(cells)
    assert (found["sessions"], found["starts"], found["completions"]) == (11, 6, 900)
    assert (found["completionRate"], found["dismissRate"]) == (0.3333, 0.3333)


def test_sessions_that_never_started_make_no_rate() -> None:
    found = analytics.totals(NOTHING._replace(cohorts=[cohort(sessions=7)]))
    assert (found["sessions"], found["starts"], found["completionRate"]) == (7, 0, 0.0)


def test_a_user_in_several_cells_is_one_user() -> None:
    cells = NOTHING._replace(
        counts=[
            counts(bucket=START, who=["u:ada", "u:bob"]),
            counts(bucket=START + QUARTER, who=["u:bob", "a:carl"]),
            counts(STEPS[0], who=["u:dora"]),
            counts(bucket=START + 2 * QUARTER),
        ],
        cohorts=[cohort(took=[1.0, 2.0])],
        custom_events=[custom("invited", 1, who=["u:emil"])],
    )
    assert analytics.totals(cells)["uniqueUsers"] == 3


@pytest.mark.parametrize(
    ("durations", "median"),
    [([[7.5]], 7.5), ([[1.0, 2.0], [30.0]], 2.0), ([[9.0], [1.0], [5.0], [7.0], [3.0]], 5.0), ([[0.0], [0.0]], 0.0)],
)
def test_the_median_is_of_all_cells_together(durations: list[list[float]], median: float) -> None:
    cells = NOTHING._replace(counts=[counts(who=["u:ada"])], cohorts=[cohort(), *(cohort(took=d) for d in durations)])
    assert analytics.totals(cells)["medianSecondsToComplete"] == median


# Steps


def test_steps_come_in_order_with_zeros_where_nothing_happened() -> None:
    cells = NOTHING._replace(
        counts=[
            counts(views=9, who=["u:bob"]),
            counts(STEPS[1], views=3, completions=2, skips=1, sessions=8, dropped=1),
            counts(STEPS[1], dismissals=4, sessions=4, dropped=2, who=["u:ada"]),
        ]
    )
    assert analytics.steps(cells, FLOW) == [
        {
            "stepId": STEPS[0],
            "position": 0,
            "name": "Step 0",
            "views": 0,
            "completions": 0,
            "skips": 0,
            "dismissals": 0,
            "sessions": 0,
            "uniqueUsers": 0,
            "dropOff": 0,
            "dropOffRate": 0.0,
        },
        {
            "stepId": STEPS[1],
            "position": 1,
            "name": "Step 1",
            "views": 3,
            "completions": 2,
            "skips": 1,
            "dismissals": 4,
            "sessions": 12,
            "uniqueUsers": 1,
            "dropOff": 3,
            "dropOffRate": 0.25,
        },
    ]


def test_a_step_that_the_flow_no_longer_has_is_not_listed_but_what_left_there_still_left() -> None:
    gone = "55555555-5555-4555-8555-555555555555"
    cells = NOTHING._replace(counts=[counts(gone, dismissals=2, sessions=2, dropped=2)])
    assert [step["stepId"] for step in analytics.steps(cells, FLOW)] == STEPS
    assert analytics.totals(cells)["dismissals"] == 2


def test_a_flow_without_steps_has_none() -> None:
    assert analytics.steps(NOTHING, Flow(FLOW.organisation, FLOW.flow_id, "Banner", "banner", [])) == []


# Series


def read_from(cells: Cells, asked: list[list[Interval]] | None = None) -> analytics.ReadCells:
    """As the store answers: the cells of the intervals asked for."""

    def read(intervals: Sequence[Interval]) -> Cells:
        if asked is not None:
            asked.append(list(intervals))
        start, end = intervals[0].start, intervals[-1].end
        return Cells(*([row for row in rows if start <= row["bucket"] < end] for rows in cells))

    return read


def test_each_interval_has_what_happened_in_it() -> None:
    cells = NOTHING._replace(
        counts=[
            counts(bucket=START, views=1, who=["u:ada"]),
            counts(bucket=START + DAY - QUARTER, views=2),
            counts(STEPS[0], bucket=START + DAY, views=4, skips=1),
            counts(bucket=START + DAY, who=["u:ada"]),
            counts(bucket=START + DAY + QUARTER, who=["u:bob"]),
            counts(bucket=START + 3 * DAY - QUARTER, views=8),
        ],
        cohorts=[cohort(START + 2 * DAY, sessions=3, starts=2)],
    )
    found = analytics.series(days(3), read_from(cells))
    assert [point["start"] for point in found] == [f"2026-01-0{day}T00:00:00+00:00" for day in (1, 2, 3)]
    assert [point["views"] for point in found] == [3, 0, 8]
    assert [point["skips"] for point in found] == [0, 1, 0]
    assert [(point["sessions"], point["starts"]) for point in found] == [(0, 0), (0, 0), (3, 2)]
    assert [point["uniqueUsers"] for point in found] == [1, 2, 0]


def test_a_long_series_is_read_a_few_intervals_at_a_time() -> None:
    asked: list[list[Interval]] = []
    chosen = days(2 * CHUNK + 1)
    cells = NOTHING._replace(counts=[counts(bucket=i.start, views=1) for i in chosen.intervals])
    assert [point["views"] for point in analytics.series(chosen, read_from(cells, asked))] == [1] * (2 * CHUNK + 1)
    assert [len(part) for part in asked] == [CHUNK, CHUNK, 1]
    assert [interval for part in asked for interval in part] == chosen.intervals


def test_rows_are_split_by_interval_whatever_their_order() -> None:
    intervals = [Interval(0, 900), Interval(900, 3600), Interval(3600, 4500)]
    rows = [{"bucket": bucket} for bucket in (4500, 2700, -900, 0, 3600, 900)]
    found = analytics.split(rows, intervals)
    assert [[row["bucket"] for row in part] for part in found] == [[0], [900, 2700], [3600]]


# Custom events


def test_custom_events_come_most_frequent_first_with_their_users() -> None:
    cells = NOTHING._replace(
        counts=[counts(who=["u:carl"])],
        custom_events=[
            *(custom("b", 2), custom("c", 1), custom("=evil", 9)),
            *(custom("a", 1, who=["u:ada"]), custom("a", 1, who=["u:ada", "u:bob"])),
        ],
    )
    assert analytics.custom_events(cells) == [
        {"name": "=evil", "count": 9, "uniqueUsers": 0},
        {"name": "a", "count": 2, "uniqueUsers": 2},
        {"name": "b", "count": 2, "uniqueUsers": 0},
        {"name": "c", "count": 1, "uniqueUsers": 0},
    ]


# The document


def test_the_document_has_the_fields_of_the_contract_in_its_order() -> None:
    found = analytics.document(FLOW, days(1), NOTHING, [], 1_767_268_800_123, 1_767_268_801_623)
    assert list(found) == [
        *("flowId", "flowName", "flowType", "from", "to", "interval", "timezone"),
        *("totals", "steps", "series", "customEvents", "processedThrough", "lagSeconds"),
    ]
    assert (found["flowId"], found["flowName"], found["flowType"]) == (FLOW.flow_id, "Onboarding", "tour")
    assert (found["from"], found["to"]) == ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")
    assert (found["interval"], found["timezone"]) == ("day", "UTC")
    assert (found["processedThrough"], found["lagSeconds"]) == ("2026-01-01T12:00:00.123Z", 1.5)


def test_where_nothing_was_ever_read_there_is_no_time_up_to_which_it_was() -> None:
    for through in (None, 0):
        found = analytics.document(FLOW, days(1), NOTHING, [], through, 1_767_268_801_623)
        assert (found["processedThrough"], found["lagSeconds"]) == (None, None)


def test_a_log_whose_clock_is_ahead_makes_no_negative_lag() -> None:
    assert analytics.document(FLOW, days(1), NOTHING, [], 1_767_268_800_000, 1_767_268_799_000)["lagSeconds"] == 0


# Whatever the rows

SMALL = st.integers(0, 50)
BUCKETS = st.integers(0, 4 * 96 - 1).map(lambda n: START + n * QUARTER)
WHO = st.sampled_from(["u:ada", "u:bob", "a:carl", "a:dora", "u:emil"])


@st.composite
def drawn_cells(draw: st.DrawFn) -> Cells:
    """Rows of four days, as consistent as the store's: no more completed or dropped than started or seen."""
    subjects = st.sampled_from([NO_STEP, *STEPS])

    def some(row: st.SearchStrategy[Row]) -> list[Row]:
        return draw(st.lists(row, max_size=8))

    def cohort_of(bucket: int, starts: int, completed: int, dismissed: int) -> Row:
        return cohort(
            bucket, sessions=starts, starts=starts, completed=min(starts, completed), dismissed=min(starts, dismissed)
        )

    def counts_of(sessions: int, dropped: int, **others: Any) -> Row:
        return counts(sessions=sessions, dropped=min(sessions, dropped), **others)

    numbers = {name: SMALL for name in analytics.COUNTS}
    return Cells(
        some(st.builds(counts_of, SMALL, SMALL, step=subjects, bucket=BUCKETS, who=st.lists(WHO), **numbers)),
        some(st.builds(cohort_of, BUCKETS, SMALL, SMALL, SMALL)),
        some(st.builds(custom, st.sampled_from(["a", "b", "c"]), SMALL, BUCKETS)),
    )


def within(cells: Cells, start: int, end: int) -> Cells:
    return Cells(*([row for row in rows if start <= row["bucket"] < end] for rows in cells))


def added(first: dict[str, Any], second: dict[str, Any], names: Iterable[str]) -> dict[str, int]:
    return {name: first[name] + second[name] for name in names}


ADDITIVE = ("views", "starts", "completions", "dismissals", "skips", "sessions")
STEP_ADDITIVE = (*analytics.COUNTS, "sessions", "dropOff")


@settings(deadline=None)
@given(cells=drawn_cells(), cut=BUCKETS)
def test_two_adjacent_ranges_add_up_to_their_union(cells: Cells, cut: int) -> None:
    before, after = within(cells, START, cut), within(cells, cut, START + 4 * DAY)
    first, second, union = (analytics.totals(part) for part in (before, after, cells))
    assert added(first, second, ADDITIVE) == {name: union[name] for name in ADDITIVE}
    by_step = zip(*(analytics.steps(part, FLOW) for part in (before, after, cells)), strict=True)
    for one, other, both in by_step:
        assert added(one, other, STEP_ADDITIVE) == {name: both[name] for name in STEP_ADDITIVE}
        assert max(one["uniqueUsers"], other["uniqueUsers"]) <= both["uniqueUsers"]
        assert both["uniqueUsers"] <= one["uniqueUsers"] + other["uniqueUsers"]
    custom_counts = [{c["name"]: c["count"] for c in analytics.custom_events(p)} for p in (before, after, cells)]
    for name, count in custom_counts[2].items():
        assert custom_counts[0].get(name, 0) + custom_counts[1].get(name, 0) == count


@settings(deadline=None)
@given(cells=drawn_cells(), cut=BUCKETS)
def test_a_rate_of_the_union_lies_between_those_of_its_parts(cells: Cells, cut: int) -> None:
    parts = [analytics.totals(p) for p in (within(cells, START, cut), within(cells, cut, START + 4 * DAY))]
    started = [part["completionRate"] for part in parts if part["starts"]]
    union = analytics.totals(cells)["completionRate"]
    assert 0 <= union <= 1
    if started:
        assert min(started) <= union <= max(started)


@settings(deadline=None)
@given(cells=drawn_cells(), interval=st.sampled_from(["day", "hour"]))
def test_the_series_adds_up_to_the_totals(cells: Cells, interval: str) -> None:
    union = analytics.totals(cells)
    series = analytics.series(days(4, interval), read_from(cells))
    assert {name: sum(point[name] for point in series) for name in ADDITIVE} == {name: union[name] for name in ADDITIVE}
