"""What fails alone is found, everything else is done, and what is nobody's fault is not looked for."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.bisect import AllFail, bisect


class Attempts:
    """Keeps what went well; fails wherever a bad one is among the parts."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)
        self.number = 0

    def __call__(self, parts: Sequence[int]) -> list[int]:
        self.number += 1
        if self.bad & set(parts):
            raise ValueError(min(self.bad & set(parts)))
        return list(parts)


@given(st.sets(st.integers(0, 40)), st.integers(0, 40))
def test_each_bad_one_is_found_and_each_other_done_once_in_order(bad: set[int], number: int) -> None:
    done, failed = bisect(range(number), Attempts(*bad), (), 100)
    assert [part for parts in done for part in parts] == [n for n in range(number) if n not in bad]
    assert [(one.at, str(one.error)) for one in failed] == [(n, str(n)) for n in range(number) if n in bad]


def test_one_among_many_is_found_in_few_attempts() -> None:
    attempts = Attempts(700)
    bisect(range(1000), attempts, (), 100)
    assert attempts.number <= 2 * 10 + 1


def test_two_that_fail_only_together_are_both_done() -> None:
    def attempt(parts: Sequence[int]) -> list[int]:
        if {3, 4} <= set(parts):
            raise ValueError
        return list(parts)

    done, failed = bisect(range(8), attempt, (), 100)
    assert (sorted(n for parts in done for n in parts), failed) == (list(range(8)), [])


def test_an_error_that_is_nobodys_comes_out_at_once() -> None:
    attempts = 0

    def attempt(parts: Sequence[int]) -> None:
        nonlocal attempts
        attempts += 1
        if len(parts) == 2:
            raise ConnectionError
        raise ValueError

    with pytest.raises(ConnectionError):
        bisect(range(8), attempt, (ConnectionError,), 100)
    assert attempts == 3


def test_so_many_in_a_row_that_it_is_not_them_end_the_search() -> None:
    attempts = Attempts(0, *range(2, 1000))
    with pytest.raises(AllFail) as ended:
        bisect(range(1000), attempts, (), 10)
    assert [one.at for one in ended.value.failed] == list(range(2, 12))
    assert attempts.number < 50
    done, failed = bisect(range(100), Attempts(*range(0, 100, 2)), (), 2)
    assert (len(failed), len(done)) == (50, 50), "with good ones between them there is no row"
