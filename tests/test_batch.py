"""One batch is one transaction: whole or not at all, whatever fails in it, whoever else writes."""

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from backends.log import TopicPartition
from backends.store.catalog import Flow
from backends.store.counting import Counting, OffsetMoved
from backends.store.engine import open_engine
from schemas import records
from schemas import tables as t
from schemas.records import Heartbeat
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
    new_id,
    stored_offsets,
)
from workers.batch import CUSTOM_NAMES, Batches

MINUTE, DAY = 60_000, 86_400_000


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


def whole_day(engine: sa.Engine, flow: Flow) -> dict[str, int]:
    start = NOW // DAY * DAY
    totals: dict[str, int] = analytics(engine, flow, chosen_range(start, start + DAY))["totals"]
    return totals


class Crash(BaseException):
    """What a test throws into a transaction: the end of the process, no error that could be handled."""


class FailAt:
    """Fails the nth statement that the store is sent, commits included."""

    def __init__(self, engine: sa.Engine, n: int) -> None:
        self._engine = engine
        self._left = n

    def __enter__(self) -> None:
        sa.event.listen(self._engine, "before_cursor_execute", self._statement)
        sa.event.listen(self._engine, "commit", self._commit)

    def __exit__(self, *_: object) -> None:
        sa.event.remove(self._engine, "before_cursor_execute", self._statement)
        sa.event.remove(self._engine, "commit", self._commit)

    def _statement(self, *_: object) -> None:
        self._count()

    def _commit(self, _: sa.Connection) -> None:
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Crash


def test_a_crash_at_any_statement_leaves_nothing_and_the_next_try_counts_once(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [2])
    log = Partitions()
    fields = {"flow": flow.flow_id, "session": "s", "user": "1" * 64}
    batch = [
        log.record(envelope(organisation, event("view", time=NOW - MINUTE, **fields), event("complete", **fields))),
        log.record(b"poison", envelope(organisation, event("custom", name="invited", **fields))),
        log.record(Heartbeat(v=1, org=organisation, received=NOW, id=new_id(), host="app.example.com"), partition=1),
    ]
    batches = Batches(engine)
    expected = stored_offsets(engine, batch)
    before = snapshot(engine)
    crashes = 0
    while True:
        try:
            with FailAt(engine, crashes + 1):
                batches.apply(batch, expected)
            break
        except Crash:
            crashes += 1
            assert snapshot(engine) == before
    assert crashes > 10, "it has that many statements at least"
    assert Counting(engine).ledger() == {"consumed": 5, "counted": 4, "rejected:unreadable": 1}
    assert whole_day(engine, flow) | {"medianSecondsToComplete": None} == {
        **{"views": 1, "starts": 1, "completions": 1, "dismissals": 0, "skips": 0, "sessions": 1, "uniqueUsers": 1},
        **{"completionRate": 1.0, "dismissRate": 0.0, "medianSecondsToComplete": None},
    }


def test_a_zombie_writes_nothing_even_where_only_one_of_its_partitions_moved(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    batch = [log.record(envelope(organisation, event(flow=flow.flow_id)), partition=p) for p in (0, 1)]
    zombie = stored_offsets(engine, batch)
    apply(engine, batch[1])
    before = snapshot(engine)
    with pytest.raises(OffsetMoved) as moved:
        Batches(engine).apply(batch, zombie)
    assert (moved.value.topic, moved.value.partition) == (log.topic, 1)
    assert snapshot(engine) == before


def test_two_workers_with_the_same_batch_at_the_same_time_count_it_once(engine: sa.Engine) -> None:
    """Both believe the partition theirs: one is the zombie, and which is decided by the database alone."""
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    outcomes = []
    for _ in range(5):
        batch = [log.record(envelope(organisation, *(event(flow=flow.flow_id) for _ in range(20))))]
        expected = stored_offsets(engine, batch)
        together = threading.Barrier(2)

        def work(batch: list = batch, expected: dict = expected, together: threading.Barrier = together) -> None:  # type: ignore[type-arg]
            batches = Batches(engine)
            together.wait(20)
            try:
                batches.apply(batch, expected)
                outcomes.append("written")
            except OffsetMoved:
                outcomes.append("moved")

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(outcomes) == ["moved"] * 5 + ["written"] * 5
    assert Counting(engine).ledger() == {"consumed": 100, "counted": 100}


def test_workers_on_different_partitions_add_to_the_same_flow_without_losing_any(engine: sa.Engine) -> None:
    """As after a topic has grown: one organisation in two partitions, sessions and sketches shared between them."""
    organisation, [flow] = make_flows(engine, [2])
    log = Partitions()
    written = {
        p: [
            log.record(
                envelope(
                    organisation,
                    event("view", flow=flow.flow_id, session=f"s{n}", user=f"{n:064x}"),
                    event("complete" if p else "view", flow=flow.flow_id, session=f"s{n}", user=f"{p}{n:063x}"),
                ),
                partition=p,
            )
            for n in range(15)
        ]
        for p in (0, 1)
    }
    for theirs in written.values():
        stored_offsets(engine, theirs)
    failures: list[BaseException] = []

    def work(partition: int) -> None:
        batches = Batches(engine)
        expected = {TopicPartition(log.topic, partition): 0}
        try:
            for record in written[partition]:
                expected = batches.apply([record], expected)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(p,)) for p in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    totals = whole_day(engine, flow)
    assert (totals["views"], totals["completions"], totals["starts"]) == (45, 15, 15)
    assert (totals["completionRate"], totals["uniqueUsers"]) == (1.0, 30)


def test_an_event_retried_the_next_day_is_a_duplicate(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    first = event(flow=flow.flow_id)  # no time, no time in its id: only the day of receipt is known
    for days in (0, 1, 6):
        apply(engine, log.record(envelope(organisation, first, received=NOW + days * DAY)))
    assert Counting(engine).ledger() == {"consumed": 3, "counted": 1, "duplicate": 2}


def test_an_event_of_a_clock_days_ahead_is_a_duplicate_when_retried_until_its_day_is_near(engine: sa.Engine) -> None:
    """At the first try its own day is out of reach and the day of receipt remembers it; at the next it is not."""
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    ahead = event(flow=flow.flow_id, time=NOW + 9 * DAY)
    for days in (0, 3, 6):
        apply(engine, log.record(envelope(organisation, ahead, received=NOW + days * DAY)))
    assert Counting(engine).ledger() == {"consumed": 3, "counted": 1, "duplicate": 2}


def test_custom_names_beyond_the_bound_are_counted_together(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    names = [f"name {n:04}" for n in range(CUSTOM_NAMES + 5)]
    for start in range(0, len(names), 50):
        events = (event("custom", name=name, flow=flow.flow_id) for name in names[start : start + 50])
        apply(engine, log.record(envelope(organisation, *events)))
    apply(engine, log.record(envelope(organisation, event("custom", name=names[0], flow=flow.flow_id))))
    start = NOW // DAY * DAY
    found = analytics(engine, flow, chosen_range(start, start + DAY))["customEvents"]
    counts = {one["name"]: one["count"] for one in found}
    assert len(counts) == CUSTOM_NAMES + 1
    assert (counts[t.OTHER_NAMES], counts[names[0]]) == (5, 2)


def test_more_sketches_than_are_read_at_once_are_each_added_to(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.batch.SKETCH_ROWS", 2)
    organisation, [flow] = make_flows(engine, [5])
    log = Partitions()
    for n in range(2):
        fields = {"flow": flow.flow_id, "session": f"s{n}", "user": f"{n:064x}", "time": NOW - MINUTE}
        apply(engine, log.record(envelope(organisation, *(event(step=s.step_id, **fields) for s in flow.steps))))
    start = NOW // DAY * DAY
    found = analytics(engine, flow, chosen_range(start, start + DAY))
    assert [(s["views"], s["uniqueUsers"], s["sessions"]) for s in found["steps"]] == [(2, 2, 2)] * 5
    assert found["totals"]["uniqueUsers"] == 2


def test_a_session_that_an_event_does_not_change_is_not_written_again(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [2])
    log, first, second = Partitions(), flow.steps[0].step_id, flow.steps[1].step_id
    written: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        written.extend(name for name in ("sessions", "cohorts") if f"INSERT INTO {name} " in statement)

    def send(kind: str, step: str) -> list[str]:
        fields = {"flow": flow.flow_id, "session": "s", "user": "1" * 64, "time": NOW - MINUTE}
        written.clear()
        apply(engine, log.record(envelope(organisation, event(kind, step=step, **fields))))
        return list(written)

    sa.event.listen(engine, "before_cursor_execute", note)
    assert send("view", first) == ["sessions", "cohorts"]
    assert send("complete", first) == []
    assert send("view", second) == ["sessions"]
    assert send("dismiss", second) == ["sessions", "cohorts"]
    assert send("dismiss", second) == []


def test_a_flow_published_after_its_first_event_counts_from_then_on(engine: sa.Engine) -> None:
    from backends.store.catalog import Catalog, Step

    organisation, _ = make_flows(engine, [1])
    clock = [1000.0]
    batches = Batches(engine)
    batches._scope._clock = lambda: clock[0]
    log = Partitions()
    late = Flow(organisation, new_id(), "Late", "tour", [Step(new_id(), 0, "One")], 1)
    apply(engine, log.record(envelope(organisation, event(flow=late.flow_id))), batches=batches)
    Catalog(engine).import_flow(late)
    clock[0] += 1.5
    apply(engine, log.record(envelope(organisation, event(flow=late.flow_id))), batches=batches)
    assert Counting(engine).ledger() == {"consumed": 2, "counted": 1, "rejected:unknown_flow": 1}


def test_a_flow_of_another_organisation_is_rejected_with_its_bytes_and_place(engine: sa.Engine) -> None:
    mine, _ = make_flows(engine, [1])
    _, [foreign] = make_flows(engine, [1])
    log = Partitions()
    strange = event(flow=foreign.flow_id, data=None)
    apply(engine, log.record(envelope(mine, event("custom", name="fine"), strange, sent=NOW)))
    [row] = snapshot(engine)["rejected"]
    assert row == {
        **{"organisation_id": mine, "topic": log.topic, "partition": 0, "record_offset": 0, "line": 0, "event": 1},
        **{"reason": "unknown_flow", "received_at": NOW, "body": row["body"]},
    }
    assert row["body"].encode() == records.encode(envelope(mine, strange, sent=NOW))
    start = NOW // DAY * DAY
    assert analytics(engine, foreign, chosen_range(start, start + DAY))["totals"]["views"] == 0
