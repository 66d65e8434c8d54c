"""A batch in shares that are written at the same time: what comes of each, and which partitions are in which."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.log import Record, TopicPartition
from backends.store.counting import Move, OffsetMoved
from workers.batch import Prepared
from workers.scope import Named
from workers.writer import Writer, Written, shares


def batch_of(partition: int) -> Prepared:
    return Prepared([Move("t", partition, 0, 5, 1)], [], Named({}), [], 0, 0.0)


def written(batch: Prepared) -> dict[TopicPartition, int]:
    return {TopicPartition(move.topic, move.partition): move.following for move in batch.moves}


@pytest.fixture
def together() -> Iterator[Writer]:
    """Its two threads go on when both have come; the second partition moved on without us."""
    meeting = threading.Barrier(2, timeout=30)

    def write(batch: Prepared) -> dict[TopicPartition, int]:
        meeting.wait()
        if batch.moves[0].partition == 1:
            raise OffsetMoved("t", 1)
        return written(batch)

    writer = Writer(write, 2)
    yield writer
    writer.close()


def test_two_are_written_at_the_same_time_and_one_that_fails_takes_nothing_from_the_other(together: Writer) -> None:
    for partition in (0, 1):
        together.start(batch_of(partition), {TopicPartition("t", partition): 7})
    first, second = together.finish()
    assert first == Written({TopicPartition("t", 0): 5}, {TopicPartition("t", 0): 7})
    assert isinstance(second, OffsetMoved)
    assert second.partition == 1
    assert together.finish() == []
    assert not together.busy


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9))),
    st.integers(1, 4),
)
def test_shares_have_every_record_once_in_the_order_of_its_partition(places: list[tuple[str, int]], most: int) -> None:
    batch = [Record(topic, partition, offset, 0, b"x") for offset, (topic, partition) in enumerate(places)]
    made = shares(batch, most, 1)
    assert len(made) <= most
    assert all(made)
    numbers = [{record.partition for record in share} for share in made]
    assert sum(map(len, numbers)) == len(set().union(*numbers))  # no partition's number is in two of them
    for topic, partition in set(places):
        mine = [r for share in made for r in share if (r.topic, r.partition) == (topic, partition)]
        assert mine == [r for r in batch if (r.topic, r.partition) == (topic, partition)]
    assert sum(map(len, made)) == len(batch)


def test_shares_are_of_about_the_same_bytes() -> None:
    sizes = [(0, 600), (1, 300), (2, 100), (2, 200), (3, 200)]
    batch = [Record("t", partition, offset, 0, b"x" * size) for offset, (partition, size) in enumerate(sizes)]
    found = [sorted(len(record.value) for record in share) for share in shares(batch, 3, 400)]
    assert sorted(found) == [[100, 200], [200, 300], [600]]


@pytest.mark.parametrize(("size", "number"), [(0, 1), (799, 1), (800, 2), (1200, 3), (9000, 3)])
def test_a_small_batch_is_not_shared(size: int, number: int) -> None:
    batch = [Record("t", partition, 0, 0, b"x" * (size // 10 + (partition < size % 10))) for partition in range(10)]
    assert len(shares(batch, 3, 400)) == number
