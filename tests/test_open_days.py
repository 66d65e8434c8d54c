"""A day is open while it lasts: its quarters count. When it is over its cells are summed up, whatever else goes on."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from backends.store.accounts import Accounts
from backends.store.catalog import Flow
from backends.store.engine import open_engine
from backends.store.rollups import Rollups
from cli.balance import within_the_store
from schemas import tables as t
from schemas.records import Envelope
from tests.blocking import waiting
from tests.snapshot import snapshot
from tests.working import until
from tests.worlds import NOW, Partitions, analytics, apply, chosen_range, envelope, event, make_flows, stored_offsets
from workers.batch import Batches
from workers.closer import Closer

MINUTE, DAY_MS = 60_000, 86_400_000
TODAY = NOW // DAY_MS * t.DAY
CELLS = [str(table.name) for table in t.CELLS]


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


def at(days: float) -> Callable[[], float]:
    """A clock that stands so many days from the events."""
    return lambda: NOW / 1000 + days * t.DAY


def tours(organisation: str, flow: Flow) -> list[Envelope]:
    """Of three people, with all that has cells: steps, completions, a dismissal, custom events."""
    made = []
    for person in range(3):
        fields = {"flow": flow.flow_id, "session": f"s{person}", "user": f"{person:064x}"}
        began = NOW - 90 * MINUTE + person * 40 * MINUTE
        events = [event(time=began, **fields)]
        events += [
            event(kind, time=began + n * MINUTE, step=step.step_id, **fields)
            for n, step in enumerate(flow.steps)
            for kind in ("view", "complete")
        ]
        events.append(event("complete" if person else "dismiss", time=began + 5 * MINUTE, **fields))
        events.append(event("custom", name="invited", time=began, **fields))
        events.append(event("custom", name="upgraded", time=began, user=fields["user"]))
        made.append(envelope(organisation, *events))
    return made


def cells(engine: sa.Engine, organisation: str, flow: Flow) -> dict[str, list[str]]:
    """What an organisation has, with places for names in the ids."""
    places = {organisation: "organisation", flow.flow_id: "flow"}
    places |= {step.step_id: f"step {step.position}" for step in flow.steps}
    found: dict[str, list[str]] = {}
    for table, rows in snapshot(engine).items():
        if table in CELLS:
            theirs = [row for row in rows if row["organisation_id"] == organisation]
            named = [{name: places.get(str(value), value) for name, value in row.items()} for row in theirs]
            found[table] = sorted(repr(row) for row in named)
    return found


def grains(engine: sa.Engine) -> set[int]:
    with engine.connect() as connection:
        return {row[0] for table in t.CELLS for row in connection.execute(sa.select(table.c.grain))}


def open_days(engine: sa.Engine) -> set[tuple[str, int]]:
    with engine.connect() as connection:
        return {(row.flow_id, row.bucket) for row in connection.execute(sa.select(t.open_days))}


def day_of(engine: sa.Engine, flow: Flow) -> dict[str, Any]:
    return analytics(engine, flow, chosen_range(TODAY * 1000, TODAY * 1000 + DAY_MS))


def balanced(engine: sa.Engine) -> bool:
    return not list(within_the_store(Accounts(engine).books()))


def test_events_of_today_stand_in_quarters_alone_and_read_as_before_and_after_the_day_is_over(
    engine: sa.Engine,
) -> None:
    organisation, [flow] = make_flows(engine, [2])
    log = Partitions("zenstep.events")
    for line in tours(organisation, flow):
        apply(engine, log.record(line), batches=Batches(engine, clock=at(0)))
    assert grains(engine) == {t.QUARTER}
    assert open_days(engine) == {(flow.flow_id, TODAY), (t.NO_FLOW, TODAY)}
    assert balanced(engine)
    during = day_of(engine, flow)
    assert (during["totals"]["starts"], during["totals"]["completions"], during["totals"]["uniqueUsers"]) == (3, 2, 3)
    Closer(engine, clock=at(0)).close_days()
    assert grains(engine) == {t.QUARTER}, "it is not over"
    Closer(engine, clock=at(1)).close_days()
    assert grains(engine) == {t.QUARTER, t.DAY}
    assert open_days(engine) == set()
    assert balanced(engine)
    after = day_of(engine, flow)
    assert {k: v for k, v in after.items() if k != "lagSeconds"} == {
        k: v for k, v in during.items() if k != "lagSeconds"
    }


def test_a_closed_day_has_the_cells_that_a_worker_writes_who_comes_late(engine: sa.Engine) -> None:
    found = []
    for clock in (at(0), at(3)):
        organisation, [flow] = make_flows(engine, [2])
        log = Partitions(f"{organisation}.events")
        for line in tours(organisation, flow):
            apply(engine, log.record(line), batches=Batches(engine, clock=clock))
        Closer(engine, clock=at(1)).close_days()
        found.append(cells(engine, organisation, flow))
    assert grains(engine) == {t.QUARTER, t.DAY}
    assert all(found[0].values())
    assert found[0] == found[1]


def test_what_comes_after_a_day_was_closed_is_added_to_it(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [2])
    log = Partitions("zenstep.events")
    for number, line in enumerate(tours(organisation, flow)):
        apply(engine, log.record(line), batches=Batches(engine, clock=at(number and 1)))
        Closer(engine, clock=at(1)).close_days()
        assert balanced(engine)
    assert open_days(engine) == set()
    totals = day_of(engine, flow)["totals"]
    assert (totals["starts"], totals["completions"], totals["uniqueUsers"]) == (3, 2, 3)


def test_a_day_that_had_cells_when_it_was_opened_is_summed_up_in_their_place(engine: sa.Engine) -> None:
    """As days have that a release before began, and where the clocks of two workers differ around midnight."""
    organisation, [flow] = make_flows(engine, [2])
    log = Partitions("zenstep.events")
    for number, line in enumerate(tours(organisation, flow)):
        apply(engine, log.record(line), batches=Batches(engine, clock=at(0 if number else -1)))
        assert balanced(engine)
    assert grains(engine) == {t.QUARTER, t.DAY}
    Closer(engine, clock=at(1)).close_days()
    assert balanced(engine)
    totals = day_of(engine, flow)["totals"]
    assert (totals["starts"], totals["completions"], totals["uniqueUsers"]) == (3, 2, 3)


def test_a_day_that_is_over_stays_open_for_late_events_until_it_is_closed(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [2])
    log = Partitions("zenstep.events")
    for number, line in enumerate(tours(organisation, flow)):
        apply(engine, log.record(line), batches=Batches(engine, clock=at(number and 1)))
    assert grains(engine) == {t.QUARTER}
    assert day_of(engine, flow)["totals"]["starts"] == 3
    assert balanced(engine)


def test_a_session_that_goes_on_after_midnight_is_moved_in_the_day_it_began(engine: sa.Engine) -> None:
    """Its cohort is yesterday's, which is closed, while its events are of today."""
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions("zenstep.events")
    fields = {"flow": flow.flow_id, "session": "s"}
    evening, morning = TODAY * 1000 - 10 * MINUTE, TODAY * 1000 + 10 * MINUTE
    views = envelope(organisation, event(time=evening, **fields), received=evening)
    apply(engine, log.record(views, timestamp=evening), batches=Batches(engine, clock=at(-1)))
    Closer(engine, clock=at(0)).close_days()
    completes = envelope(organisation, event("complete", time=morning, **fields), received=morning)
    apply(engine, log.record(completes, timestamp=morning), batches=Batches(engine, clock=at(0)))
    assert open_days(engine) == {(flow.flow_id, TODAY)}
    with engine.connect() as connection:
        days = [row[0] for c in t.CELLS for row in connection.execute(sa.select(c.c.bucket).where(c.c.grain == t.DAY))]
    assert set(days) == {TODAY - t.DAY}
    assert balanced(engine)
    yesterday = analytics(engine, flow, chosen_range(TODAY * 1000 - DAY_MS, TODAY * 1000))["totals"]
    assert (yesterday["starts"], yesterday["completionRate"], yesterday["medianSecondsToComplete"]) == (1, 1.0, 1200.0)
    assert day_of(engine, flow)["totals"]["completions"] == 1


def test_a_day_is_closed_once_however_many_try(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [2])
    apply(engine, Partitions().record(*tours(organisation, flow)), batches=Batches(engine, clock=at(0)))
    day = (organisation, flow.flow_id, TODAY)
    found = [Rollups(engine).open(TODAY + t.DAY), Rollups(engine).open(TODAY)]
    assert found == [[(organisation, t.NO_FLOW, TODAY), day], []]
    assert [Rollups(engine).close(*day) for _ in range(2)] == [True, False]
    assert Rollups(engine).close(organisation, "", TODAY - t.DAY) is False


def test_a_day_is_not_closed_while_a_worker_is_about_to_add_to_it(postgres_url: str) -> None:
    """Else what it adds would be in no cell that is read."""
    engine = open_engine(postgres_url)
    organisation, [flow] = make_flows(engine, [2])
    log = Partitions("zenstep.events")
    first, *others = tours(organisation, flow)
    apply(engine, log.record(first), batches=Batches(engine, clock=at(0)))
    batch = [log.record(*others)]
    writing = open_engine(postgres_url)
    reached, go_on = threading.Event(), threading.Event()

    @sa.event.listens_for(writing, "before_cursor_execute")
    def hold(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO counts"):
            reached.set()
            assert go_on.wait(30)

    expected = stored_offsets(engine, batch)
    worker = threading.Thread(target=lambda: Batches(writing, clock=at(0)).apply(batch, expected))
    closer = threading.Thread(target=Closer(engine, clock=at(1)).close_days)
    worker.start()
    assert reached.wait(30)
    closer.start()
    until(lambda: waiting(postgres_url) == 1)
    go_on.set()
    worker.join(30)
    closer.join(30)
    assert open_days(engine) == set()
    assert balanced(engine)
    assert day_of(engine, flow)["totals"]["starts"] == 3
    for one in (engine, writing):
        one.dispose()


def test_a_day_that_cannot_be_summed_up_stays_open_and_the_others_are_closed(engine: sa.Engine) -> None:
    organisation, [broken, sound] = make_flows(engine, [2, 2])
    log = Partitions()
    for flow in (broken, sound):
        lines = [envelope(organisation, event(flow=flow.flow_id, user="1" * 64))]
        apply(engine, log.record(*lines), batches=Batches(engine, clock=at(0)))
    with engine.begin() as connection:
        theirs = t.counts.c.flow_id == broken.flow_id
        connection.execute(t.counts.update().where(theirs).values(users=b"no sketch"))
    failed = REGISTRY.get_sample_value("zenstep_day_errors_total") or 0
    for _ in range(3):  # whichever comes first
        Closer(engine, clock=at(1)).close_days()
    assert open_days(engine) == {(broken.flow_id, TODAY)}
    assert (REGISTRY.get_sample_value("zenstep_day_errors_total") or 0) == failed + 3
    assert REGISTRY.get_sample_value("zenstep_days_to_close") == 1


def test_days_are_closed_by_themselves_also_after_the_store_was_away(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    organisation, [flow] = make_flows(engine, [2])
    apply(engine, Partitions().record(*tours(organisation, flow)), batches=Batches(engine, clock=at(0)))
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE open_days RENAME TO open_days_away"))
    closer = Closer(engine, every=0.01, clock=at(1))
    closer.start()
    until(lambda: "days are closed later: the store is away" in caplog.text)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE open_days_away RENAME TO open_days"))
    until(lambda: not open_days(engine))
    closer.stop()
    assert day_of(engine, flow)["totals"]["starts"] == 3
