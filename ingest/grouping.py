"""Which lines share a record."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def grouped(items: Iterable[T], length: Callable[[T], int], most: int) -> list[list[T]]:
    """Groups, in order, whose lines joined by newlines are `most` bytes or less. A longer line is a group alone."""
    groups: list[list[T]] = []
    size = most + 1
    for item in items:
        if size + 1 + length(item) > most:
            groups.append([])
            size = -1
        groups[-1].append(item)
        size += 1 + length(item)
    return groups
