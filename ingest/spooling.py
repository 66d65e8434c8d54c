"""Puts lines onto the spool from the event loop: those of a tick, and those that come while the disk is busy, share a
group, and so an fsync.
"""

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from backends.spool import Entry, Spool, SpoolError, SpoolFull
from service import metrics

GROUP_BYTES = 4 * 1024 * 1024
MAX_WAITING_BYTES = 32 * 1024 * 1024


class _Waiting(NamedTuple):
    entry: Entry
    done: asyncio.Future[None]


class Spooling:
    """For one event loop."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._busy = False
        self.stored = asyncio.Event()  # something is in the spool

    async def put(self, entry: Entry) -> None:
        """Returns when it is on the disk. Raises SpoolFull, SpoolError."""
        loop = asyncio.get_running_loop()
        if self._bytes > MAX_WAITING_BYTES:
            raise SpoolFull("the disk is too slow")
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append(_Waiting(entry, done))
        self._bytes += len(entry.line)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._append)
        await done

    def close(self) -> None:
        self._thread.shutdown()

    def _append(self) -> None:
        group = []
        size = 0
        while self._waiting and size < GROUP_BYTES:
            group.append(self._waiting.popleft())
            size += len(group[-1].entry.line)
        self._bytes -= size
        loop = asyncio.get_running_loop()
        appended = loop.run_in_executor(self._thread, self._write, [waiting.entry for waiting in group])
        appended.add_done_callback(partial(self._finish, group))

    def _write(self, entries: list[Entry]) -> None:
        with metrics.spool_append_seconds.time():
            self._spool.append(entries)

    def _finish(self, group: list[_Waiting], appended: "asyncio.Future[None]") -> None:
        error = appended.exception()
        if error is None:
            self.stored.set()
            metrics.events_spooled.inc(sum(waiting.entry.events for waiting in group))
        for waiting in group:
            if waiting.done.done():
                continue  # its request was given up
            if error is None:
                waiting.done.set_result(None)
            else:
                known = isinstance(error, SpoolError)
                waiting.done.set_exception(error if known else SpoolError(type(error).__name__))
        if self._waiting:
            self._append()
        else:
            self._busy = False


def observe(spool: Spool) -> None:
    """Has the gauges ask the spool whenever they are read."""

    def age() -> float:
        oldest = spool.status().oldest_at
        return max(0.0, time.time() - oldest / 1000) if oldest is not None else 0.0

    metrics.spool_events.set_function(lambda: spool.status().events)
    metrics.spool_bytes.set_function(lambda: spool.status().size)
    metrics.spool_oldest_seconds.set_function(age)
    metrics.spool_damaged_bytes.set_function(lambda: spool.status().damaged)
