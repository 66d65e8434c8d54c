"""Finds what fails alone among many that failed together. Pure: what is tried and how it is undone is the caller's."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

P = TypeVar("P")
R = TypeVar("R")


class Failed(NamedTuple):
    """One that fails alone, by its place among all, and what it raised."""

    at: int
    error: Exception


class AllFail(Exception):
    """So many in a row fail, each alone, that the fault is not in them."""

    def __init__(self, failed: Sequence[Failed]) -> None:
        super().__init__(f"{len(failed)} in a row")
        self.failed = failed


def bisect(
    parts: Sequence[P], attempt: Callable[[Sequence[P]], R], passing: tuple[type[Exception], ...], in_a_row: float
) -> tuple[list[R], list[Failed]]:
    """Attempts all of them, in order; where that raises, each half, down to the single ones.

    Returns what the attempts that went well returned, and those that fail alone. An attempt that raises must leave
    nothing behind. Errors of the `passing` types are nobody's among the parts, and come out at once. Raises AllFail.
    """
    results: list[R] = []
    failed: list[Failed] = []
    row: list[Failed] = []
    left = [(0, len(parts))] if parts else []
    while left:
        start, end = left.pop()
        try:
            results.append(attempt(parts[start:end]))
            row = []
        except passing:
            raise
        except Exception as error:
            if end - start > 1:
                middle = (start + end) // 2
                left += [(middle, end), (start, middle)]
                continue
            failed.append(Failed(start, error))
            row.append(failed[-1])
            if len(row) >= in_a_row:
                raise AllFail(row) from error
    return results, failed
