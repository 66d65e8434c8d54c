"""Poison in the middle of a batch: it alone is set aside, to be replayed; a fault of the store never is."""

import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import orjson
import psycopg
import pytest
import sqlalchemy as sa

from backends.store.catalog import Flow
from backends.store.counting import Counting
from backends.store.engine import ENVIRONMENT_ERRORS, open_engine
from schemas import records
from schemas.ids import NIL
from schemas.records import Envelope, Heartbeat
from service import metrics
from tests.snapshot import COUNTED, snapshot
from tests.worlds import NOW, Partitions, apply, envelope, event, make_flows, new_id, stored_offsets
from workers.batch import Batches
from workers.items import Item
from workers.limit import Limit, TooMuchPoison

BAD = "a name that the database does not take"


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


def refuse(engine: sa.Engine, name: str = BAD) -> None:
    """Has the database itself refuse custom events of this name."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ALTER TABLE custom_events ADD CHECK (name <> '{name}')")
        else:
            connection.exec_driver_sql(
                f"CREATE TRIGGER refuse BEFORE INSERT ON custom_events WHEN NEW.name = '{name}' "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )


def take_all(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("ALTER TABLE custom_events DROP CONSTRAINT custom_events_name_check")
        else:
            connection.exec_driver_sql("DROP TRIGGER refuse")


def custom(name: str, **fields: Any) -> records.RecordEvent:
    return event("custom", name=name, **fields)


def test_a_value_that_the_database_refuses_is_set_aside_alone_and_counts_when_replayed(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    organisation, [flow] = make_flows(engine, [1])
    refuse(engine)
    log = Partitions()
    good = [log.record(envelope(organisation, event(flow=flow.flow_id), custom("fine"))) for _ in range(5)]
    bad = custom(BAD, data=msgspec.Raw(b'{"a": 1}'))
    middle = log.record(envelope(organisation, custom("fine"), bad, custom("fine"), sent=NOW))
    more = [log.record(envelope(organisation, event(flow=flow.flow_id))) for _ in range(5)]
    batch = [*good, middle, *more]
    reached = apply(engine, *batch)
    assert list(reached.values()) == [11]
    assert Counting(engine).ledger() == {"consumed": 18, "counted": 17, "rejected:poison": 1}
    [row] = snapshot(engine)["rejected"]
    assert (row["organisation_id"], row["reason"], row["received_at"]) == (organisation, "poison", NOW)
    assert (row["partition"], row["record_offset"], row["line"], row["event"]) == (0, 5, 0, 1)
    [said] = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert (said.__dict__["offset"], said.__dict__["event"]) == (5, 1)
    assert BAD not in str(said.__dict__)
    take_all(engine)
    apply(engine, log.record(row["body"].encode()))
    assert Counting(engine).ledger() == {"consumed": 19, "counted": 18, "rejected:poison": 1}


def test_much_poison_between_good_events_does_not_use_up_the_locks(postgres_url: str) -> None:
    """PostgreSQL has some thousands for all, and would answer as if it were away, every time."""
    engine = open_engine(postgres_url)
    organisation, [flow] = make_flows(engine, [1])
    refuse(engine)
    line = envelope(organisation, *[custom(BAD) if n % 3 == 0 else event(flow=flow.flow_id) for n in range(300)])
    held: list[int] = []

    def note(connection: sa.Connection) -> None:
        query = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'transactionid'"
        held.append(connection.exec_driver_sql(query).scalar_one())

    sa.event.listen(engine, "commit", note)
    apply(engine, Partitions().record(line))
    assert Counting(engine).ledger() == {"consumed": 300, "counted": 200, "rejected:poison": 100}
    assert 0 < max(held) < 10
    engine.dispose()


def lines_of(organisation: str, flow: Flow) -> list[Envelope | Heartbeat]:
    step = flow.steps[0].step_id
    same = event(flow=flow.flow_id, session="s", user="1" * 64)
    return [
        envelope(organisation, event("view", flow=flow.flow_id, session="s", user="1" * 64), same, custom("fine")),
        Heartbeat(v=1, org=organisation, received=NOW, id=new_id(), host="app.example.com"),
        envelope(organisation, same, event("complete", flow=flow.flow_id, session="s")),
        envelope(organisation, event("view", flow=flow.flow_id, step=step, session="s2"), event(flow=new_id())),
    ]


def test_a_batch_with_poison_comes_to_the_same_as_the_rest_of_it_alone(engine: sa.Engine) -> None:
    refuse(engine)
    log = Partitions()
    found = []
    for poison in (False, True):
        organisation, [flow] = make_flows(engine, [2])
        bad = [envelope(organisation, custom(BAD))] if poison else []
        apply(engine, *(log.record(*bad, line, *bad) for line in lines_of(organisation, flow)))
        named = {organisation: "ORGANISATION", flow.flow_id: "FLOW", flow.steps[0].step_id: "STEP"}
        rows = {
            str(table): [row for row in rows if row.get("organisation_id") == organisation]
            for table, rows in snapshot(engine).items()
            if table in COUNTED - {"seen"}
        }
        text = orjson.dumps(rows, option=orjson.OPT_NON_STR_KEYS).decode()
        for mine, name in named.items():
            text = text.replace(mine, name)
        found.append(orjson.loads(text))
    assert found[0] == found[1]
    assert len(found[0]["cohorts"]) == 2
    assert Counting(engine).ledger()["rejected:poison"] == 8


def test_a_bug_of_ours_for_one_event_sets_that_event_aside(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    events = [event(flow=flow.flow_id) for _ in range(20)]
    date = Item.date

    def buggy(item: Item) -> None:
        if item.id in (events[3].id, events[11].id):
            raise ZeroDivisionError
        date(item)

    monkeypatch.setattr(Item, "date", buggy)
    apply(engine, log.record(envelope(organisation, *events)))
    assert Counting(engine).ledger() == {"consumed": 20, "counted": 18, "rejected:poison": 2}
    assert [row["event"] for row in snapshot(engine)["rejected"]] == [3, 11]


def test_poison_that_fails_in_the_look_up_is_found_too(engine: sa.Engine) -> None:
    organisation, [flow, other] = make_flows(engine, [1, 1])
    batches = Batches(engine)
    lookup = batches._scope._lookup

    def failing(keys: Any) -> Any:
        wanted = list(keys)
        if (organisation, other.flow_id) in wanted:
            raise ValueError
        return lookup(wanted)

    batches._scope._lookup = failing
    log = Partitions()
    lines = [envelope(organisation, event(flow=f.flow_id)) for f in (flow, other, flow)]
    apply(engine, log.record(*lines), batches=batches)
    assert Counting(engine).ledger() == {"consumed": 3, "counted": 2, "rejected:poison": 1}


def test_the_store_away_during_the_search_puts_the_batch_off_and_sets_nothing_aside(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    organisation, _ = make_flows(engine, [1])
    refuse(engine)
    log = Partitions()
    batch = [log.record(envelope(organisation, custom("fine"), custom(BAD), custom("good")))]
    expected = stored_offsets(engine, batch)
    before = snapshot(engine)
    parts: list[str] = []

    def cut(connection: sa.Connection, cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("SAVEPOINT"):
            return
        parts.append(statement)
        if len(parts) == 3:
            process = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (process,))

    sa.event.listen(engine, "before_cursor_execute", cut)
    batches = Batches(engine)
    with pytest.raises(ENVIRONMENT_ERRORS):
        batches.apply(batch, expected)
    assert (len(parts), snapshot(engine)) == (3, before)
    batches.apply(batch, expected)
    assert Counting(engine).ledger() == {"consumed": 3, "counted": 2, "rejected:poison": 1}
    engine.dispose()


def test_everything_failing_is_not_the_events_fault_and_writes_nothing(engine: sa.Engine) -> None:
    organisation, _ = make_flows(engine, [1])
    refuse(engine)
    log = Partitions()
    batch = [log.record(envelope(organisation, *(custom(BAD) for _ in range(50)))) for _ in range(4)]
    expected = stored_offsets(engine, batch)
    before = snapshot(engine)
    with pytest.raises(
        TooMuchPoison, match=r"^20 events in a row fail \(.*: 20\), from .*ZENSTEP_POISON_IN_A_ROW$"
    ) as e:
        Batches(engine, Limit(in_a_row=20)).apply(batch, expected)
    assert BAD not in str(e.value)
    assert snapshot(engine) == before


def newer(organisation: object = None, events: object = (1, 2, 3), **fields: object) -> bytes:
    line = {"v": records.VERSION + 1, "kind": "events", "org": organisation, "received": NOW + 5, "events": events}
    return orjson.dumps(line | fields)


def test_lines_of_a_newer_release_are_parked_whole_and_the_lines_beside_them_count(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    parked = [
        newer(organisation),  # as this release could not even decode it
        records.encode(msgspec.structs.replace(envelope(organisation, custom("a"), custom("b")), v=2)),
        newer(organisation, v=records.VERSION, kind="session_replay"),
        newer("not one of ours", received="soon", events={"packed": True}),
    ]
    apply(
        engine, log.record(parked[0], envelope(organisation, event(flow=flow.flow_id)), *parked[1:], timestamp=NOW + 9)
    )
    assert Counting(engine).ledger() == {"consumed": 10, "counted": 1, "rejected:newer_version": 9}
    rows = {row["line"]: row for row in snapshot(engine)["rejected"]}
    assert [row["body"].encode() for _, row in sorted(rows.items())] == parked
    assert {row["event"] for row in rows.values()} == {-1}
    assert [rows[n]["organisation_id"] for n in (0, 2, 3, 4)] == [organisation] * 3 + [NIL]
    assert [rows[n]["received_at"] for n in (0, 2, 3, 4)] == [NOW + 5, NOW, NOW + 5, NOW + 9]


def test_a_parked_line_counts_when_it_is_replayed_after_an_upgrade(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    line = msgspec.structs.replace(envelope(organisation, event(flow=flow.flow_id)), v=records.VERSION + 1)
    apply(engine, log.record(line))
    [row] = snapshot(engine)["rejected"]
    monkeypatch.setattr(records, "VERSION", records.VERSION + 1)
    apply(engine, log.record(row["body"].encode()))
    assert Counting(engine).ledger() == {"consumed": 2, "counted": 1, "rejected:newer_version": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (newer(v=0), "unreadable"),
        (newer(v="2"), "unreadable"),
        (newer(v=None), "unreadable"),
        (newer(v="_").replace(b'"_"', b"1" * 30), "newer_version"),
        (newer(v=records.VERSION), "unreadable"),
        (newer(kind=7), "unreadable"),
        (b'{"v": 2}', "unreadable"),
        (b"[2]", "unreadable"),
        (b'{"v": 2, "kind": "events", "x": ' + b"[" * 50_000, "unreadable"),
        (records.encode(Heartbeat(v=0, org=NIL, received=NOW, id=NIL)), "unknown_version"),
    ],
)
def test_what_is_of_no_release_is_not_parked(engine: sa.Engine, line: bytes, reason: str) -> None:
    apply(engine, Partitions().record(line))
    assert Counting(engine).ledger()[f"rejected:{reason}"] >= 1


def test_what_the_log_gives_again_is_passed_over_and_told(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    batch = [log.record(envelope(organisation, event(flow=flow.flow_id))) for _ in range(3)]
    apply(engine, *batch[:2])
    before = metrics.records_redelivered._value.get()
    apply(engine, *batch)
    assert metrics.records_redelivered._value.get() - before == 2
    assert Counting(engine).ledger() == {"consumed": 3, "counted": 3}
