"""The limits that a setting asks for."""

from collections.abc import Callable

from backends.limits.memory import MemoryLimits
from backends.limits.protocol import Limits


def open_limits(url: str | None, tell: Callable[[int], None]) -> Limits:
    """Shared where there is a `redis://` address, and then `tell` hears 1 when it is away and -1 when it is back."""
    if url is None:
        return MemoryLimits()
    from backends.limits.failover import FailoverLimits
    from backends.limits.redis import RedisLimits

    return FailoverLimits(RedisLimits(url), MemoryLimits(), tell)
