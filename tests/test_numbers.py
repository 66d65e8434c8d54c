"""The store's numbers against the brute-force model, whatever the order, batches, duplicates and workers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.log import Record
from backends.store.catalog import Flow
from backends.store.counting import Counting, OffsetMoved
from backends.store.engine import open_engine
from schemas.records import Envelope, RecordEvent
from tests.model import Model
from tests.snapshot import snapshot
from tests.worlds import (
    NOW,
    Partitions,
    analytics,
    apply,
    chosen_range,
    envelope,
    event,
    make_flows,
    modelled,
    new_id,
    steps_of,
    stored_offsets,
    zone,
)
from workers.batch import Batches
from workers.closer import Closer

HOUR, DAY = 3_600_000, 86_400_000
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Chatham"]
EXAMPLES = {"sqlite": 40, "postgresql": 15}  # the same statements but for a few, at ten times the cost


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


def held(engine: sa.Engine) -> settings:
    return settings(max_examples=EXAMPLES[engine.dialect.name], deadline=None)


class World(NamedTuple):
    """Two organisations, the first with flows of 3 and 1 steps, the second with one of 2; made for each example."""

    organisations: list[str]
    flows: list[Flow]

    def of(self, organisation: str) -> list[Flow]:
        return [flow for flow in self.flows if flow.organisation == organisation]


def make_world(engine: sa.Engine) -> World:
    first, theirs = make_flows(engine, [3, 1])
    second, others = make_flows(engine, [2])
    return World([first, second], [*theirs, *others])


# Events are drawn as plain numbers, so that examples shrink and do not depend on the ids of a run.
Drawn = dict[str, Any]
drawn_event = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["view", "view", "view", "complete", "dismiss", "skip", "custom"]),
        "organisation": st.sampled_from([0, 0, 1]),
        "flow": st.sampled_from([0, 0, 0, 0, 1, 2, 3]),  # the last one is another organisation's
        "step": st.sampled_from([None, 0, 1, 2, 3]),  # the last one is of no flow
        "session": st.sampled_from([0, 0, 0, 1, 1, 2, None]),
        "user": st.none() | st.integers(0, 3),
        "anon": st.none() | st.integers(0, 2),
        "name": st.sampled_from(["invited", "upgraded"]),
        "minutes_ago": st.none()
        | st.integers(-5, 3 * 24 * 60)
        | st.integers(6 * 24 * 60, 8 * 24 * 60)
        | st.integers(-9 * 24 * 60, -6 * 24 * 60),
    }
)
drawn_envelope = st.fixed_dictionaries(
    {
        "events": st.lists(drawn_event, min_size=1, max_size=8),
        "retries": st.sampled_from([0, 0, 0, 1, 2]),
        "retry_hours": st.integers(0, 48),
        "clock_minutes": st.sampled_from([None, None, 0, 7, -180, -9 * 24 * 60, 9 * 24 * 60]),
    }
)


def build(world: World, drawn: list[Drawn]) -> list[Envelope]:
    """Envelopes with their retries behind them."""
    made: list[Envelope] = []
    for one in drawn:
        organisation = world.organisations[one["events"][0]["organisation"]]
        clock = one["clock_minutes"]
        events = [build_event(world, organisation, e, clock or 0) for e in one["events"]]
        for attempt in range(1 + one["retries"]):
            received = NOW + attempt * one["retry_hours"] * HOUR
            sent = received + clock * 60_000 if clock is not None else None
            made.append(envelope(organisation, *events, received=received, sent=sent))
    return made


def build_event(world: World, organisation: str, drawn: Drawn, clock: int) -> RecordEvent:
    theirs = world.of(organisation)
    foreign = next(flow for flow in world.flows if flow.organisation != organisation)
    flow = [*theirs, foreign][drawn["flow"] % (len(theirs) + 1)]
    steps = [step.step_id for step in flow.steps] + [new_id()]
    no_flow = drawn["kind"] == "custom" and drawn["flow"] == 3
    fields: Drawn = {
        "flow": None if no_flow else flow.flow_id,
        "step": None if no_flow or drawn["step"] is None else steps[drawn["step"] % len(steps)],
        "session": None if drawn["session"] is None else f"session {drawn['session']}",
        "user": None if drawn["user"] is None else f"{drawn['user']:064x}",
        "anon": None if drawn["anon"] is None else f"anonymous {drawn['anon']}",
        "name": drawn["name"] if drawn["kind"] == "custom" else None,
        "time": None if drawn["minutes_ago"] is None else NOW - (drawn["minutes_ago"] - clock) * 60_000,
    }
    return event(drawn["kind"], **fields)


def test_any_order_batching_duplication_and_split_over_workers(engine: sa.Engine) -> None:
    @held(engine)
    @given(data=st.data(), drawn=st.lists(drawn_envelope, min_size=1, max_size=12))
    def holds(data: st.DataObject, drawn: list[Drawn]) -> None:
        world = make_world(engine)
        model = Model(steps_of(world.flows))
        envelopes = data.draw(st.permutations(build(world, drawn)), label="order")
        log = Partitions()
        now = [NOW / 1000]
        workers = [Batches(engine, clock=lambda: now[0]), Batches(engine, clock=lambda: now[0])]
        closer = Closer(engine, clock=lambda: now[0])
        waiting = list(envelopes)
        applied: list[Record] = []
        while waiting:
            size = data.draw(st.integers(1, len(waiting)), label="envelopes in the batch")
            taken, waiting = waiting[:size], waiting[size:]
            partitions = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size), label="partitions")
            batch = [log.record(one, partition=p) for one, p in zip(taken, partitions, strict=True)]
            before = stored_offsets(engine, batch)
            # Which days are open: workers may lag behind, and their clocks may differ.
            now[0] = NOW / 1000 + data.draw(st.integers(-9, 2), label="days from now") * DAY / 1000
            worker = data.draw(st.sampled_from(workers), label="worker")
            worker.apply(batch, before)
            applied += batch
            for one in taken:
                model.take(one)
            if data.draw(st.booleans(), label="a zombie tries the same batch"):
                with pytest.raises(OffsetMoved):
                    data.draw(st.sampled_from(workers)).apply(batch, before)
            if data.draw(st.booleans(), label="days are closed"):
                closer.close_days()
        hold(engine, world, model, data)
        before_again = snapshot(engine)
        # The whole topic once more from its beginning: the store's offsets say it is all counted.
        apply(engine, *applied)
        assert snapshot(engine) == before_again

    holds()


def hold(engine: sa.Engine, world: World, model: Model, data: st.DataObject) -> None:
    """The ledger adds up, and a drawn range of every flow reads as the model says."""
    ledger: dict[str, int] = {}
    for organisation in world.organisations:
        for outcome, events in Counting(engine).ledger(organisation).items():
            ledger[outcome] = ledger.get(outcome, 0) + events
    assert ledger == {**model.outcomes, "consumed": model.outcomes.total()}
    name = data.draw(st.sampled_from(ZONES), label="zone")
    interval = data.draw(st.sampled_from(["day", "hour"]), label="interval")
    start = NOW // DAY * DAY - data.draw(st.integers(0, 9 * 96), label="quarters before") * HOUR // 4
    end = start + data.draw(st.integers(1, 11 * 96), label="quarters long") * HOUR // 4
    for flow in world.flows:
        chosen = chosen_range(start, end, interval, name)
        document = analytics(engine, flow, chosen)
        expected = model.analytics(flow.organisation, flow.flow_id, start, end, interval, zone(name))
        assert modelled(document) == expected


def test_the_median_is_that_of_the_sessions_that_started_in_the_range(engine: sa.Engine) -> None:
    """Each session is one start and, for some, one completion so many seconds later, in any number of batches."""

    @held(engine)
    @given(
        data=st.data(),
        sessions=st.lists(
            st.tuples(st.integers(0, 5 * DAY // 1000), st.integers(1, 3000), st.booleans()), min_size=1, max_size=40
        ),
    )
    def holds(data: st.DataObject, sessions: list[tuple[int, int, bool]]) -> None:
        organisation, [flow] = make_flows(engine, [2])
        log = Partitions()
        lines = []
        for n, (ago, took, completes) in enumerate(sessions):
            start = NOW - DAY - ago * 1000
            fields = {"flow": flow.flow_id, "session": f"s{n}"}
            lines.append(envelope(organisation, event("view", time=start, **fields)))
            if completes:
                lines.append(envelope(organisation, event("complete", time=start + took * 1000, **fields)))
        while lines:
            size = data.draw(st.integers(1, len(lines)), label="lines in the batch")
            apply(engine, log.record(*lines[:size]))
            lines = lines[size:]
        end = NOW // DAY * DAY
        start = end - data.draw(st.integers(1, 6)) * DAY
        cohort = sorted(took for ago, took, ok in sessions if ok and start <= NOW - DAY - ago * 1000 < end)
        found = analytics(engine, flow, chosen_range(start, end))["totals"]["medianSecondsToComplete"]
        if cohort:
            assert found in (cohort[(len(cohort) - 1) // 2], cohort[len(cohort) // 2])
        else:
            assert found is None

    holds()
