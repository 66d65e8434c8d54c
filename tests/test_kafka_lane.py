"""One partition's records on their way: the numbers they get, and what becomes of them when something fails."""

from concurrent.futures import Future

from kafka.record.memory_records import MemoryRecords

from backends.log.kafka_frames import Identity
from backends.log.kafka_lane import RECORD_BYTES, Append, Batch, Lane

ONE, OTHER = Identity(1, 0), Identity(2, 0)
MOST = 1000


def lane(*values: bytes, expires: float = 10.0) -> Lane:
    made = Lane("t.events", 3)
    add(made, *values, expires=expires)
    return made


def add(to: Lane, *values: bytes, expires: float = 10.0) -> None:
    to.waiting.extend(Append(value, Future(), expires) for value in values)


def read(batch: Batch) -> tuple[int, list[bytes]]:
    """Its first sequence number and its values."""
    found = MemoryRecords(batch.content).next_batch()
    return found.base_sequence, [bytes(record.value) for record in found]


def values(appends: list[Append]) -> list[bytes]:
    return [append.value for append in appends]


def test_numbers_go_on_from_batch_to_batch() -> None:
    made = lane(b"a", b"b", b"c")
    assert read(made.next(ONE, MOST, 1)) == (0, [b"a", b"b", b"c"])
    assert values(made.appended()) == [b"a", b"b", b"c"]
    add(made, b"d")
    assert read(made.next(ONE, MOST, 1)) == (3, [b"d"])


def test_numbers_begin_again_behind_the_last_one_there_is() -> None:
    made = lane(b"a", b"b")
    made.next(ONE, MOST, 1)
    made._sequence = 2**31 - 1
    made.appended()
    add(made, b"c")
    assert read(made.next(ONE, MOST, 1)) == (1, [b"c"])


def test_only_one_batch_is_under_way() -> None:
    made = lane(b"a")
    made.next(ONE, MOST, 1)
    add(made, b"b")
    assert not made.wants


def test_what_may_be_there_is_sent_again_as_it_was() -> None:
    made = lane(b"a")
    first = made.next(ONE, MOST, 1)
    add(made, b"b")
    made.under_way = False
    assert made.wants
    assert made.next(OTHER, MOST, 9) is first


def test_another_identity_counts_from_nothing() -> None:
    made = lane(b"a", b"b")
    made.next(ONE, MOST, 1)
    made.appended()
    add(made, b"c")
    assert read(made.next(OTHER, MOST, 1)) == (0, [b"c"])


def test_a_batch_has_as_many_as_fit_and_at_least_one() -> None:
    made = lane(*[b"x" * 300] * 5)
    assert len(made.next(ONE, 2 * (300 + RECORD_BYTES), 1).appends) == 2
    made.appended()
    assert len(made.next(ONE, 10, 1).appends) == 1


def test_one_that_is_to_be_alone_is() -> None:
    made = lane(b"a", b"b", b"c")
    made.waiting[1].alone = True
    taken = []
    while made.wants:
        made.next(ONE, MOST, 1)
        taken.append(values(made.appended()))
    assert taken == [[b"a"], [b"b"], [b"c"]]


def test_what_waited_for_too_long_is_given_up_and_nothing_else() -> None:
    made = lane(b"a", expires=1.0)
    add(made, b"b", expires=2.0)
    assert values(made.expired(0.5)) == []
    assert values(made.expired(1.0)) == [b"a"]
    assert made.oldest is made.waiting[0]
    made.next(ONE, MOST, 1)
    add(made, b"c", expires=3.0)
    assert values(made.expired(2.5)) == [b"b"]
    assert made.wants
    assert values(made.expired(3.0)) == [b"c"]
    assert made.oldest is None
    assert not made.wants
