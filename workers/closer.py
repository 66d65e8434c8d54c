"""Closes the days that are over, beside the counting: a thread that looks once a minute."""

import logging
import random
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from backends.store.engine import ENVIRONMENT_ERRORS
from backends.store.rollups import Rollups
from schemas.tables import DAY
from service import metrics

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0


class Closer:
    """Several workers share the work: each takes days in an order of its own, and one that is closed is no work."""

    def __init__(self, engine: sa.Engine, every: float = EVERY_SECONDS, clock: Callable[[], float] = time.time) -> None:
        self._rollups = Rollups(engine)
        self._every = every
        self._clock = clock
        self._stopping = threading.Event()
        # A worker that ends does not wait for a store that is frozen; a day is closed whole or not at all.
        self._thread = threading.Thread(target=self._run, name="closer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is under way is left to end by itself."""
        self._stopping.set()

    def close_days(self) -> None:
        """Those that are over by the clock. Raises the store's errors where it is away."""
        days = self._rollups.open(int(self._clock()) // DAY * DAY)
        metrics.days_to_close.set(len(days))
        random.shuffle(days)
        for number, day in enumerate(days, 1):
            if self._stopping.is_set():
                return
            try:
                closed = self._rollups.close(*day)
            except ENVIRONMENT_ERRORS:
                raise
            except Exception:  # one that fails is no reason to leave the others open; readers have its quarters
                log.exception("day not closed", extra={"day": day[2]})
                metrics.day_errors.inc()
                continue
            metrics.days_closed.inc(closed)
            metrics.days_to_close.set(len(days) - number)

    def _run(self) -> None:
        # Not all workers of an installation in the same moment.
        seconds = random.uniform(0, self._every)
        while not self._stopping.wait(seconds):
            seconds = self._every
            try:
                self.close_days()
            except ENVIRONMENT_ERRORS as error:
                log.warning("days are closed later: the store is away", extra={"kind": type(error).__name__})
