"""A batch in shares that are written at the same time: what comes of each, and which partitions are in which."""

import queue
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.log import Record, TopicPartition
from backends.store.counting import Move, OffsetMoved
from tests.working import until
from workers.batch import Prepared
from workers.scope import Named
from workers.writer import Behind, Writer, Written, shares


def batch_of(partition: int) -> Prepared:
    return Prepared([Move("t", partition, 0, 5, 7)], [], Named({}), [], 0, 0.0)


def written(batch: Prepared) -> dict[TopicPartition, int]:
    return {TopicPartition(move.topic, move.partition): move.following for move in batch.moves}


def reached(partition: int) -> dict[TopicPartition, int]:
    return {TopicPartition("t", partition): 7}


def begin(writer: Writer, *partitions: int) -> None:
    writer.begin([batch_of(partition) for partition in partitions])


class Store:
    """Takes what is written, and lets a partition's write end, well or badly, when the test says so."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self._ends: defaultdict[int, queue.Queue[Exception | None]] = defaultdict(queue.Queue)

    def write(self, batch: Prepared) -> dict[TopicPartition, int]:
        (move,) = batch.moves
        self.began.append(move.partition)
        error = self._ends[move.partition].get(timeout=30)
        if error is not None:
            raise error
        return written(batch)

    def end(self, partition: int, error: Exception | None = None) -> None:
        self._ends[partition].put(error)

    def has_begun(self, *partitions: int) -> None:
        until(lambda: sorted(self.began) == sorted(partitions))


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    made = Writer(store.write, 3)
    yield made
    for partition in range(3):
        for _ in range(9):
            store.end(partition)
    made.close()


def test_two_are_written_at_the_same_time_and_one_that_fails_takes_nothing_from_the_other(
    writer: Writer, store: Store
) -> None:
    begin(writer, 0, 1)
    store.has_begun(0, 1)
    store.end(0)
    store.end(1, OffsetMoved("t", 1))
    first, second = writer.finish()
    assert first == Written({TopicPartition("t", 0): 5}, reached(0))
    assert isinstance(second, OffsetMoved)
    assert second.partition == 1
    assert writer.finish() == []
    assert writer.idle


def test_a_share_waits_for_the_one_before_of_its_partitions_and_for_no_other(writer: Writer, store: Store) -> None:
    begin(writer, 0, 1, 2)
    store.has_begun(0, 1, 2)
    assert not writer.ready
    store.end(1)
    writer.wait_until_ready()
    assert writer.ready
    begin(writer, 0, 1, 2)
    store.has_begun(0, 1, 2, 1)
    assert not writer.ready, "two of the batch before are not done"
    store.end(0)
    store.end(2)
    store.has_begun(0, 1, 2, 1, 0, 2)
    assert not writer.ready, "each is busy with the second batch"
    store.end(2)
    writer.wait_until_ready()
    assert writer.ready


def test_what_stands_behind_a_failure_is_not_written_and_the_rest_of_its_batch_is(writer: Writer, store: Store) -> None:
    begin(writer, 0, 1)
    store.end(1)
    writer.wait_until_ready()
    begin(writer, 0, 1)
    store.end(1)
    store.end(0, ValueError("no"))
    outcomes = writer.finish()
    assert [type(one) for one in outcomes] == [ValueError, Written, Behind, Written]
    assert store.began.count(0) == 1
    begin(writer, 0)
    store.end(0)
    assert writer.finish() == [Written({TopicPartition("t", 0): 5}, reached(0))], "it was begun anew"


def test_a_failure_that_is_told_is_not_told_again_and_still_stands_before_what_follows(
    writer: Writer, store: Store
) -> None:
    begin(writer, 0)
    store.end(0, ValueError("no"))
    writer.wait()
    assert [type(one) for one in writer.done()] == [ValueError]
    begin(writer, 0)
    assert [type(one) for one in writer.finish()] == [Behind]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9))),
    st.integers(1, 4),
)
def test_shares_have_every_record_once_in_the_order_of_its_partition(places: list[tuple[str, int]], most: int) -> None:
    batch = [Record(topic, partition, offset, 0, b"x") for offset, (topic, partition) in enumerate(places)]
    made = shares(batch, most, range(10), 1)
    assert len(made) <= most
    assert all(made)
    numbers = [{record.partition for record in share} for share in made]
    assert sum(map(len, numbers)) == len(set().union(*numbers))  # no partition's number is in two of them
    for topic, partition in set(places):
        mine = [r for share in made for r in share if (r.topic, r.partition) == (topic, partition)]
        assert mine == [r for r in batch if (r.topic, r.partition) == (topic, partition)]
    assert sum(map(len, made)) == len(batch)


def test_a_partition_is_in_the_same_share_of_every_large_batch() -> None:
    held = [1, 3, 5, 7, 9, 11]
    for without in ([], [1], [3, 5], [11]):
        batch = [Record("t", partition, 0, 0, b"x" * 1000) for partition in held if partition not in without]
        found = [sorted(record.partition for record in share) for share in shares(batch, 3, held, 400)]
        mine = [[partition for partition in of if partition not in without] for of in ([1, 7], [3, 9], [5, 11])]
        assert sorted(found) == sorted(share for share in mine if share)


@pytest.mark.parametrize(("size", "number"), [(0, 1), (799, 1), (800, 2), (1200, 3), (9000, 3)])
def test_a_small_batch_is_not_shared(size: int, number: int) -> None:
    batch = [Record("t", partition, 0, 0, b"x" * (size // 10 + (partition < size % 10))) for partition in range(10)]
    assert len(shares(batch, 3, range(10), 400)) == number
