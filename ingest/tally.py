"""What this edge has been promised by the log and by its spool, as sums in the store for `zenstep audit`.

A sum is added to when the promise is kept, never before, so it may say too little after a crash but never too much.
"""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeVar

import sqlalchemy as sa

from backends.store.accounts import EdgeSums, Place
from service import metrics

log = logging.getLogger(__name__)

EVERY_SECONDS = 2.0
CLOSE_SECONDS = 3.0
REFRESH_MS = 3_600_000  # so that an edge without traffic is still heard of
SILENT_MS = 24 * REFRESH_MS  # by then `zenstep prune` may have put this edge's rows with those of edges that ended

Outcome = Literal["acknowledged", "spooled", "flushed"]
T = TypeVar("T")


class Tally:
    """For one event loop. `run` is a task beside the serving; cancel it, then `close`.

    Sums are of this run of this edge and only ever grow, and a row is set to its sum, so that writing twice is writing
    once. While the store is away they wait in memory, one number for each organisation, partition and outcome.
    """

    def __init__(self, engine: sa.Engine, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._store = EdgeSums(engine)
        self._now_ms = now_ms
        self._edge = str(uuid.uuid4())
        self._sums: dict[Place, int] = {}
        self._changed: set[Place] = set()
        self._stored: dict[Place, int] = {}  # what the store is known to have
        self._stored_at = self._refreshed_at = now_ms()
        self._saving: asyncio.Task[None] | None = None
        self._away = False

    def add(self, organisation: str, topic: str, partition: int, outcome: Outcome, events: int) -> None:
        """These events are durable now. `spooled` ones have no partition yet: -1. From the event loop; no I/O."""
        key = (organisation, topic, partition, outcome)
        self._sums[key] = self._sums.get(key, 0) + events
        self._changed.add(key)

    async def run(self) -> None:
        """Until cancelled. The store cannot make it end, nor hold up anything else of the loop."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            self._saving = asyncio.create_task(self._save())
            await asyncio.shield(self._saving)

    async def close(self) -> None:
        """Writes what is left, and gives up after CLOSE_SECONDS: the store then has sums that are too small."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._saving is not None:
                    await self._saving
                await self._save()
        if self._changed:
            log.warning("the last sums for the audit are not written", extra={"rows": len(self._changed)})

    async def _save(self) -> None:
        now = self._now_ms()
        if now - self._refreshed_at >= REFRESH_MS:
            self._changed.update(self._sums)
            self._refreshed_at = now
        if not self._changed:
            return
        try:
            if self._stored and now - self._stored_at > SILENT_MS:
                await self._be_known()
            await self._write(now)
        except Exception as error:  # whatever it is, requests do not fail for the sake of the audit
            metrics.tally_errors.inc()
            if not self._away:
                log.warning("sums for the audit wait for the store", extra={"kind": type(error).__name__})
            self._away = True
        else:
            self._away = False
            self._stored_at = now

    async def _write(self, now: int) -> None:
        edge = self._edge
        sums = {key: self._sums[key] for key in sorted(self._changed)}
        self._changed.clear()
        try:
            await _on_thread(lambda: self._store.set(edge, sums, now))
        except BaseException:
            self._changed.update(sums)  # written or not: setting them again does no harm
            raise
        self._stored.update(sums)

    async def _be_known(self) -> None:
        """After a long silence: where our rows are now kept under no edge's name, goes on from them as another edge."""
        edge = self._edge
        if await _on_thread(lambda: self._store.knows(edge)):
            return
        self._edge = str(uuid.uuid4())
        self._sums = {key: events - self._stored.get(key, 0) for key, events in self._sums.items()}
        self._changed = set(self._sums)
        self._stored.clear()


async def _on_thread(work: Callable[[], T]) -> T:
    """On a thread of its own, which a process that ends does not wait for: a frozen store may never answer."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: Exception | None) -> None:
        if done.done():
            return  # nobody waits any more
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as failed:
            error = failed
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="edge-tally", daemon=True).start()
    return await done
