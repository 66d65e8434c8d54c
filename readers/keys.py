"""The keys that session tokens are signed with, wherever they come from."""

from collections.abc import Awaitable, Callable
from typing import Any

Keys = Callable[[str | None], Awaitable[Any]]
"""Gives the key for a `kid`. Raises UnknownKey, KeysAway."""


class UnknownKey(Exception):
    """There is no such key."""


class KeysAway(Exception):
    """Whether there is such a key cannot be told now."""
