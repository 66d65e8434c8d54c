"""What a place that counts requests promises: fixed windows that begin with their first request (documented)."""

from collections.abc import Mapping
from typing import Protocol

import msgspec


class LimitsAway(Exception):
    """The shared store did not answer in time."""


class Window(msgspec.Struct, frozen=True, gc=False):
    """The requests counted in a key's window so far, and when it ends (epoch seconds)."""

    used: int
    ends_at: float


class Limits(Protocol):
    """Counts by key. Used on one event loop. `pace` is the seconds there should be between two questions of many."""

    @property
    def pace(self) -> float: ...

    async def add(self, hits: Mapping[str, int]) -> Mapping[str, Window]:
        """Adds so many requests, 0 or more, to each key's window, a new one where it is over. Raises LimitsAway."""

    async def close(self) -> None: ...
