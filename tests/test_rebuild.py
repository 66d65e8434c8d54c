"""The rebuild: the same numbers from the topics again, damaged ones mended, what is no number of the topics kept."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backends.log import TopicPartition, open_reader
from backends.log.sqlite import SqliteLogAdmin
from backends.store.engine import open_engine
from backends.store.rebuild import KEPT, WRITTEN, RebuildError, open_beside
from schemas import tables as t
from tests import recording
from tests.rebuilding import PARTITIONS, Traffic, numbers
from tests.snapshot import CATALOGUE
from workers.rebuild import Rebuild


@pytest.fixture
def traffic(store_url: str, tmp_path: Path) -> Iterator[Traffic]:
    """Counted by workers."""
    made = Traffic(store_url, f"sqlite:///{tmp_path}/log.db")
    made.send()
    made.count()
    yield made
    made.close()


@pytest.mark.parametrize("name", recording.NAMES)
def test_a_rebuilt_recording_is_the_recording_that_was_counted(log_url: str, store_url: str, name: str) -> None:
    engine = open_engine(store_url)
    recording.prepare(engine)
    replay = recording.Replay(log_url, engine, name)
    replay.append()
    replay.count()
    before = numbers(engine)
    with closing(open_beside(store_url)) as beside, closing(open_reader(log_url)) as reader:
        assert all(found.equal for found in Rebuild(beside, reader, 100).compare())
        assert numbers(engine) == before
        Rebuild(beside, reader, 100).swap()
    assert numbers(engine) == before
    engine.dispose()


def test_random_traffic_rebuilt_in_other_batches_has_the_same_numbers_and_counts_on(traffic: Traffic) -> None:
    before = traffic.numbers()
    for batch_records in (7, 1000):
        done = traffic.rebuild(batch_records)
        assert (done.records, done.events) == (60, traffic.events)
        assert traffic.numbers() == before
    traffic.send()
    traffic.count()
    expected = traffic.numbers()
    traffic.rebuild()
    assert traffic.numbers() == expected
    assert traffic.ledger()["consumed"] == traffic.events


def test_damaged_numbers_are_found_by_a_comparison_and_mended_by_a_rebuild(traffic: Traffic) -> None:
    before = traffic.numbers()
    traffic.execute(
        "UPDATE counts SET views = views + 7 WHERE grain = 86400",
        "DELETE FROM sessions WHERE furthest IS NULL",
        "UPDATE custom_events SET users = NULL",
        "DELETE FROM custom_names",
        "DELETE FROM seen WHERE day % 2 = 0",
    )
    damaged = traffic.numbers()
    assert damaged != before
    found = traffic.compare()
    wrong = {"counts", "custom_events", "custom_names", "sessions", "seen"}
    assert {name for name, table in found.items() if not table.equal} == wrong
    views, rebuilt_views = found["counts"].sums["views"]
    assert views > rebuilt_views == sum(row["views"] for row in before["counts"])
    assert found["custom_names"].rows == (0, len(before["custom_names"]))
    assert found["counts"].rows == (len(before["counts"]), len(before["counts"]))
    assert traffic.numbers() == damaged, "a comparison changes nothing"
    traffic.rebuild()
    assert traffic.numbers() == before
    assert all(table.equal for table in traffic.compare().values())


def test_what_retention_removed_is_there_again_and_is_no_difference(traffic: Traffic) -> None:
    before = traffic.numbers()
    [(day,)] = traffic.rows("SELECT min(day) + 2 FROM seen")
    [(sessions,)] = traffic.rows("SELECT count(*) FROM sessions WHERE furthest IS NULL")
    owner = traffic.flows[0].organisation
    traffic.execute(
        f"DELETE FROM seen WHERE day < {day}",
        f"INSERT INTO horizon (singleton, day) VALUES (1, {day})",
        "DELETE FROM sessions WHERE furthest IS NULL",
        f"INSERT INTO pruned VALUES ('{owner}', 'sessions', '', -1, {sessions})",
    )
    found = traffic.compare()
    assert all(table.equal for table in found.values())
    assert (found["sessions"].pruned, found["sessions"].only) == (sessions, (0, sessions))
    traffic.rebuild()
    assert traffic.numbers() == before
    assert traffic.rows("SELECT * FROM horizon") == traffic.rows("SELECT * FROM pruned") == []


def test_marks_of_replays_and_what_readers_were_promised_come_along(traffic: Traffic) -> None:
    traffic.execute(
        "UPDATE rejected SET replayed_at = 123 WHERE record_offset % 2 = 0",
        f"UPDATE offsets SET processed_through = 1999999999999 WHERE topic = '{traffic.topic}' AND partition = 1",
    )
    marks = "SELECT organisation_id, record_offset, line, event FROM rejected WHERE replayed_at = 123 ORDER BY 1,2,3,4"
    through = "SELECT partition, processed_through FROM offsets ORDER BY 1"
    before = traffic.rows(marks), traffic.rows(through)
    assert all(before)
    traffic.rebuild()
    assert (traffic.rows(marks), traffic.rows(through)) == before


def test_a_rebuild_reads_no_further_than_the_workers_have(traffic: Traffic) -> None:
    before = traffic.numbers()
    traffic.send(10)
    traffic.rebuild()
    assert traffic.numbers() == before
    traffic.count()
    assert traffic.ledger()["consumed"] == traffic.events


def test_nothing_that_workers_do_not_write_is_touched() -> None:
    assert {table.name for table in WRITTEN} | KEPT == {table.name for table in t.metadata.sorted_tables}
    assert CATALOGUE | {"accepted", "forgotten"} == KEPT


def test_records_that_the_log_no_longer_has_are_a_refusal_that_names_them(traffic: Traffic) -> None:
    before = traffic.numbers()
    ends = dict(traffic.rows("SELECT partition, next_offset FROM offsets"))
    [(partition, last)] = [(p, end) for p, end in sorted(ends.items()) if end][:1]
    with closing(SqliteLogAdmin(traffic.log_url.removeprefix("sqlite:///"))) as admin:
        admin.delete_before(TopicPartition(traffic.topic, partition), last - 2)
    with pytest.raises(RebuildError) as refused:
        traffic.rebuild()
    assert f"{traffic.topic}[{partition}] begins at offset {last - 2}" in str(refused.value)
    assert f"no longer has 0 to {last - 3}" in str(refused.value)
    assert traffic.numbers() == before
    traffic.rebuild(accept_loss=True)
    rebuilt = traffic.numbers()
    assert rebuilt["offsets"] == before["offsets"]
    assert len(rebuilt["seen"]) < len(before["seen"])
    traffic.send()
    traffic.count()
    assert traffic.compare(accept_loss=True)["counts"].equal


def test_a_topic_that_is_gone_or_was_made_anew_is_a_refusal(traffic: Traffic, tmp_path: Path) -> None:
    before = traffic.numbers()
    traffic.log_url = f"sqlite:///{tmp_path}/other.db"
    with pytest.raises(RebuildError, match=rf"the log has no {traffic.topic}\[0\]"):
        traffic.rebuild()
    with closing(SqliteLogAdmin(f"{tmp_path}/other.db")) as admin:
        admin.create_topic(traffic.topic, PARTITIONS, 1)
    with pytest.raises(RebuildError, match=rf"{traffic.topic}\[\d\] was made anew and ends at offset 0"):
        traffic.rebuild()
    assert traffic.numbers() == before
