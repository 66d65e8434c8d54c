"""Where partitions stand, on both stores: begun, moved, adopted, each whole or not at all."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from backends.store.counting import Counting
from backends.store.engine import open_engine
from backends.store.offsets import MAX_TOPIC, AnotherTopic, Offsets, aside


@pytest.fixture
def store(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


def test_offsets_without_an_identity_take_the_one_that_is_found(store: sa.Engine) -> None:
    offsets = Offsets(store)
    Counting(store).offsets({("t", 0): 5})
    assert offsets.begin({("t", 0): 0, ("t", 1): 3}, {"t": "x"}) == {("t", 0): 5, ("t", 1): 3}
    assert [(s.next_offset, s.identity) for s in offsets.of(["t"])] == [(5, "x"), (3, "x")]
    assert offsets.begin({("t", 0): 0}, {}) == {("t", 0): 5}, "a log that does not tell is believed"
    with pytest.raises(AnotherTopic):
        offsets.begin({("t", 2): 0}, {"t": "y"})
    assert len(offsets.of(["t"])) == 2, "a partition that was never read is not begun in another topic"


def test_adopting_is_whole_and_keeps_other_topics_as_they_are(store: sa.Engine) -> None:
    offsets = Offsets(store)
    for topic in ("t", "u"):
        offsets.begin({(topic, p): 10 for p in range(3)}, {topic: "12345678-old"})
    assert offsets.adopt("t", {0: 4, 1: 0}, "new") == "t@12345678"
    assert [(s.partition, s.next_offset, s.identity) for s in offsets.of(["t"])] == [(0, 4, "new"), (1, 0, "new")]
    assert [s.next_offset for s in offsets.of(["u"])] == [10, 10, 10]
    assert offsets.adopt("t", {0: 9}, "new") is None
    assert offsets.of(["t"])[0].next_offset == 4
    assert len(aside("x" * 249, "12345678-old")) <= MAX_TOPIC


def test_an_offset_moves_only_from_where_it_was_seen(store: sa.Engine) -> None:
    offsets = Offsets(store)
    offsets.begin({("t", 0): 10}, {})
    assert offsets.move("t", 0, 9, 5) is False
    assert offsets.move("t", 0, 10, 5) is True
    assert offsets.of(["t"])[0].next_offset == 5
