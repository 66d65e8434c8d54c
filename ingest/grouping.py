"""Which lines share a record."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def grouped(items: Iterable[T], length: Callable[[T], int], most: int) -> list[list[T]]:
    """Groups, in order, whose lines joined by newlines are `most` bytes or less. A longer line is a group alone."""
    groups: list[list[T]] = []
    size = most + 1
    for item in items:
        joined = 1 + length(item)
        if size + joined > most:
            groups.append([])
            size = -1
        groups[-1].append(item)
        size += joined
    return groups
