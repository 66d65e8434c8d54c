"""How much poison stops a worker: what no client can cause, in a row of a partition or as a share of the latest."""

import itertools
from collections.abc import Iterable

import pytest

from workers.limit import REASONS, WINDOW, Fate, Limit, TooMuchPoison

_offsets = itertools.count(100)


def fates(*reasons: str | None, partition: int = 0, events: int = 1) -> list[Fate]:
    return [Fate("t", partition, next(_offsets), reason, events) for reason in reasons]


def committed(limit: Limit, batch: Iterable[Fate]) -> None:
    limit.keep(limit.weigh(batch))


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_so_many_in_a_row_stop(reason: str) -> None:
    limit = Limit(in_a_row=3)
    committed(limit, fates(None, reason, reason))
    with pytest.raises(TooMuchPoison, match=rf"^3 events in a row would be set aside \({reason}: 3\), from offset"):
        limit.weigh(fates(reason))


@pytest.mark.parametrize(
    "reason", ["unknown_flow", "unknown_step", "too_old", "refused:validation_failed", "forgotten"]
)
def test_what_a_client_can_cause_never_does(reason: str) -> None:
    limit = Limit(in_a_row=2, share=0.001)
    for _ in range(5):
        committed(limit, fates(*[reason] * WINDOW))


def test_the_message_says_what_where_and_what_may_be_done() -> None:
    limit = Limit(in_a_row=3)
    batch = [Fate("t", 7, 41, "unreadable"), Fate("t", 7, 42, "unreadable"), Fate("t", 7, 43, "newer_version")]
    with pytest.raises(TooMuchPoison) as stopped:
        limit.weigh(batch)
    assert str(stopped.value) == (
        "3 events in a row would be set aside (newer_version: 1, unreadable: 2), from offset 41 to t[7] offset 43; "
        "nothing of this batch is written. Upgrade this worker if they are of a newer release, else look at them; "
        "to have them set aside and go on, raise ZENSTEP_POISON_IN_A_ROW"
    )


def test_batches_of_other_partitions_may_be_weighed_at_the_same_time() -> None:
    limit = Limit(in_a_row=4)
    first, second = (limit.weigh(fates("invalid", "invalid", partition=partition)) for partition in (1, 2))
    limit.keep(first)
    limit.keep(second)
    for partition in (1, 2):
        with pytest.raises(TooMuchPoison, match=r"^4 events in a row"):
            limit.weigh(fates("invalid", "invalid", partition=partition))


def test_batches_that_are_weighed_at_the_same_time_both_count_in_the_share() -> None:
    limit = Limit(share=0.5)
    part = WINDOW // 5
    first, second = limit.weigh(fates("poison", events=2 * part)), limit.weigh(fates(None, events=2 * part))
    limit.keep(first)
    limit.keep(second)
    with pytest.raises(TooMuchPoison, match="of the last"):
        limit.weigh(fates("poison", events=part))


def test_anything_else_in_between_ends_the_row() -> None:
    limit = Limit(in_a_row=3)
    for other in (None, "unknown_flow"):
        committed(limit, fates("unreadable", "unreadable", other))
    committed(limit, fates("unreadable", "unreadable"))


def test_a_row_is_of_one_partition_whatever_others_hold() -> None:
    limit = Limit(in_a_row=4)
    for _ in range(3):
        committed(limit, [*fates("invalid", partition=1), *fates(None, None, partition=2)])
    committed(limit, [*fates("invalid", partition=3), *fates("invalid", partition=4)])
    with pytest.raises(TooMuchPoison, match=r"t\[1\]"):
        limit.weigh(fates("invalid", partition=1))


def test_a_whole_line_weighs_as_many_as_it_has_events() -> None:
    with pytest.raises(TooMuchPoison, match="50 events"):
        Limit(in_a_row=50).weigh(fates("newer_version", events=50))


def test_a_batch_that_is_put_off_is_weighed_once() -> None:
    limit = Limit(in_a_row=3)
    batch = fates("unreadable", "unreadable")
    for _ in range(5):
        state = limit.weigh(batch)
    limit.keep(state)
    committed(limit, fates(None))


def test_a_share_of_the_latest_stops_though_no_row_is_long() -> None:
    limit = Limit(in_a_row=10, share=0.5)
    half = [None, "poison"] * 500
    for _ in range(WINDOW // 1000 - 1):
        committed(limit, fates(*half))
    with pytest.raises(TooMuchPoison, match=rf"^5000 of the last {WINDOW} events .*poison: 500.*ZENSTEP_POISON_SHARE$"):
        limit.weigh(fates(*half))


def test_a_share_is_of_the_latest_and_not_of_few() -> None:
    limit = Limit(share=0.5)
    committed(limit, fates(*["poison"] * (WINDOW // 2 - 1)))
    committed(limit, fates(None, events=WINDOW // 2 + 1))
    committed(limit, fates(None, events=WINDOW - 10))
    committed(limit, fates(*["poison"] * 4000))
    committed(limit, fates(None, events=2000))
    committed(limit, fates(None, events=WINDOW))
    committed(limit, fates(*["poison"] * 4000))
    with pytest.raises(TooMuchPoison):
        limit.weigh(fates(*["poison"] * 6000))
