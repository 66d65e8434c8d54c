"""Where requests are counted against rate limits: one protocol, in memory or in a Redis that all edges share."""

from backends.limits.limiter import Limiter
from backends.limits.memory import MemoryLimits
from backends.limits.protocol import Limits, LimitsAway, Window
from backends.limits.select import open_limits

__all__ = ["Limiter", "Limits", "LimitsAway", "MemoryLimits", "Window", "open_limits"]
