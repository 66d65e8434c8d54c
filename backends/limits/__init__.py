"""Where requests are counted against rate limits: one protocol, in memory or in a store that all edges share."""

from backends.limits.limiter import Limiter, Verdict
from backends.limits.memory import MemoryLimits
from backends.limits.protocol import Limits, LimitsAway, Window

__all__ = ["Limiter", "Limits", "LimitsAway", "MemoryLimits", "Verdict", "Window"]
