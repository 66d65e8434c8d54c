"""The crash harness' judge: it finds what was planted, and nothing where all is well."""

import random
import uuid
from collections import Counter
from pathlib import Path

import pytest

from chaos.books import Books
from chaos.judge import Stored, Verdict, differences, judge
from chaos.process import lose_power, note_syncs
from chaos.topics import Record
from chaos.traffic import World, world_of
from schemas import records
from schemas.records import Envelope, RecordEvent

NOW = 1_770_000_000_000
WORLD: World = world_of(random.Random(1))
OURS = WORLD.organisations[0]
TOPIC = "chaos.events"


def event(**fields: object) -> RecordEvent:
    return RecordEvent(**({"id": str(uuid.uuid4()), "type": "custom", "name": "x"} | fields))  # type: ignore[arg-type]


def record(*events: RecordEvent, version: int = records.VERSION, partition: int = 0) -> Record:
    line = Envelope(v=version, org=OURS, received=NOW, events=list(events))
    return Record(TOPIC, partition, records.encode(line))


def booked(*read: Record) -> Books:
    books = Books()
    books.open(WORLD)
    books.enter(read)
    return books


def as_booked(books: Books) -> Stored:
    """A store that says what the books say."""
    return Stored({}, books.ledger.copy(), {OURS: set(books.counted[OURS])}, books.rows.copy())


def verdict_on(books: Books, stored: Stored, *acknowledged: RecordEvent) -> Verdict:
    return judge(books, stored, {OURS: {one.id for one in acknowledged}})


def test_what_is_counted_once_is_well() -> None:
    one, two = event(), event()
    books = booked(record(one, two), record(two), record(event(flow=str(uuid.uuid4()))), Record(TOPIC, 1, b"\x00"))
    assert books.ledger == {
        (OURS, TOPIC, 0, "consumed"): 4,
        (OURS, TOPIC, 0, "counted"): 2,
        (OURS, TOPIC, 0, "duplicate"): 1,
        (OURS, TOPIC, 0, "rejected:unknown_flow"): 1,
        ("00000000-0000-0000-0000-000000000000", TOPIC, 1, "consumed"): 1,
        ("00000000-0000-0000-0000-000000000000", TOPIC, 1, "rejected:unreadable"): 1,
    }
    stored = as_booked(books)
    stored = stored._replace(rejected=Counter({key: n for key, n in stored.rejected.items() if key[0] == OURS}))
    assert verdict_on(books, stored, one, two) == Verdict(0, 0, [])


def test_an_acknowledged_event_that_never_reached_the_log_is_lost() -> None:
    one, two = event(), event()
    books = booked(record(one))
    verdict = verdict_on(books, as_booked(books), one, two)
    assert verdict.lost == 1
    assert two.id in verdict.problems[0]


def test_an_event_without_an_acknowledgement_may_be_there_or_not() -> None:
    one = event()
    books = booked(record(one))
    assert verdict_on(books, as_booked(books)) == Verdict(0, 0, [])


def test_an_event_in_the_log_that_the_store_does_not_have_is_lost() -> None:
    one = event()
    books = booked(record(one))
    nothing = Stored({}, Counter(), {OURS: set()}, Counter())
    assert verdict_on(books, nothing, one).lost == 1


def test_an_id_that_is_counted_twice_is_doubled() -> None:
    one = event()
    books = booked(record(one), record(one))
    ledger = Counter({(OURS, TOPIC, 0, "consumed"): 2, (OURS, TOPIC, 0, "counted"): 2})
    verdict = verdict_on(books, as_booked(books)._replace(ledger=ledger), one)
    assert (verdict.lost, verdict.doubled) == (0, 1)


def test_a_record_that_is_consumed_twice_is_doubled_though_its_events_are_only_duplicates() -> None:
    one = event()
    books = booked(record(one))
    ledger = books.ledger + Counter({(OURS, TOPIC, 0, "consumed"): 1, (OURS, TOPIC, 0, "duplicate"): 1})
    assert verdict_on(books, as_booked(books)._replace(ledger=ledger), one).doubled == 1


def test_a_ledger_that_does_not_add_up_is_said_so() -> None:
    one = event()
    books = booked(record(one))
    ledger = books.ledger - Counter({(OURS, TOPIC, 0, "counted"): 1})
    verdict = verdict_on(books, as_booked(books)._replace(ledger=ledger), one)
    assert any("consumed are 1, counted, duplicate and rejected are 0" in said for said in verdict.problems)


def test_another_reason_than_the_model_s_is_said_so() -> None:
    books = booked(record(event(flow=str(uuid.uuid4()))))
    wrong = Counter({(OURS, TOPIC, 0, "rejected:too_old"): 1})
    verdict = verdict_on(books, as_booked(books)._replace(rejected=wrong))
    assert any("too_old 1, should be" in said for said in verdict.problems)


def test_a_line_of_a_newer_release_is_all_its_events_and_one_row() -> None:
    books = booked(record(event(), event(), version=records.VERSION + 1))
    assert books.ledger[OURS, TOPIC, 0, "rejected:newer_version"] == 2
    assert books.rows == {(OURS, TOPIC, 0, "rejected:newer_version"): 1}


@pytest.mark.parametrize(
    ("found", "expected", "said"),
    [
        ({"a": [1, 2]}, {"a": [1, 3]}, [".a[1] is 2, should be 3"]),
        ({"a": [1]}, {"a": [1, 3]}, [".a has 1, should have 2"]),
        ({"a": 1}, {"b": 1}, [" has ['a'], should have ['b']"]),
        ({"uniqueUsers": 198}, {"uniqueUsers": 199}, [".uniqueUsers is 198, should be 199"]),
        ({"uniqueUsers": 1010}, {"uniqueUsers": 1000}, []),
        ({"uniqueUsers": 1100}, {"uniqueUsers": 1000}, [".uniqueUsers is 1100, should be near 1000"]),
    ],
)
def test_documents_are_compared_to_the_last_number(found: object, expected: object, said: list[str]) -> None:
    assert differences(found, expected) == said


def test_a_loss_of_power_leaves_what_was_synced_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in ("fsync", "fdatasync"):  # put back at the end
        monkeypatch.setattr(os, name, getattr(os, name))
    folder, note = tmp_path / "spool", tmp_path / "note"
    folder.mkdir()
    note_syncs(note)
    with (folder / "half").open("wb", buffering=0) as half, (folder / "never").open("wb", buffering=0) as never:
        half.write(b"kept")
        os.fdatasync(half.fileno())
        half.write(b"gone")
        never.write(b"gone too")
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        with (folder / "nameless").open("wb", buffering=0) as nameless:
            nameless.write(b"whose name was not synced")
            os.fsync(nameless.fileno())
    assert lose_power(folder, note) > 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"half": b"kept", "never": b""}
