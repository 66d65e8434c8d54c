"""A circuit breaker: after a failure only one is tried now and then, until one succeeds. Pure but for the clock."""

import time
from collections.abc import Callable

PAUSE_SECONDS = 1.0


class Breaker:
    """Of one partition: a cluster that has lost one broker still takes the other partitions' records."""

    def __init__(self, pause: float = PAUSE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause = pause
        self._clock = clock
        self._try_at: float | None = None
        self.open = False

    def allows(self) -> bool:
        """Whether to try. While open: True once a pause, and then only when that try has come to an end."""
        if not self.open:
            return True
        if self._try_at is None or self._clock() < self._try_at:
            return False
        self._try_at = None
        return True

    def succeeded(self) -> None:
        self.open = False

    def failed(self) -> None:
        self.open = True
        self._try_at = self._clock() + self._pause
