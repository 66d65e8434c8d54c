"""One alarm that is set anew all the time: a timer of the event loop a second, not one for each time it is set.

A process that stood still for longer than the alarm (its container paused, its disk in the way) first hears what came.
"""

import asyncio
from collections.abc import Callable
from math import inf


class Alarm:
    """Goes off once, when the time that was set last has come."""

    __slots__ = ("_at", "_due", "_loop", "_then", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = self._at = inf
        self._then: Callable[[], object] = _nothing
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float, then: Callable[[], object]) -> float:
        """Instead of what was set before. Returns the loop's time at which it is due."""
        self._then = then
        self._due = due = self._loop.time() + seconds
        if due < self._at:  # else the timer that runs finds out, when it ends, that there is time left
            self._start(due)
        return due

    def put_off(self, due: float) -> None:
        """To a later time, but where it has gone off or was cleared."""
        self._due = max(self._due, due)

    def clear(self) -> None:
        self._due = inf

    def close(self) -> None:
        """For good; what was to be done is let go of."""
        self._due, self._then = inf, _nothing
        if self._timer is not None:
            self._timer.cancel()

    def _start(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer, self._at = None, inf
        if self._due == inf:
            return
        if self._loop.time() < self._due:
            self._start(self._due)
        else:
            # uvloop comes to its timers before its sockets: where the loop was held up, what came meanwhile, and puts
            # the alarm off, has not been read. The second of the two calls is behind a look at every socket.
            self._loop.call_soon(self._loop.call_soon, self._go_off)

    def _go_off(self) -> None:
        if self._due == inf:
            return
        if self._loop.time() < self._due:
            self._start(self._due)
        else:
            self._due = inf
            self._then()


def _nothing() -> None:
    """Of an alarm that is not set."""
