"""Everything behind a 2xx to a write: the log's producer, the spool for when it is away, and the sums for the audit.

Beside the serving one task keeps the topics known, one flushes the spool, one writes the sums.
"""

import asyncio
import logging
import time
from contextlib import suppress
from typing import NamedTuple

import sqlalchemy as sa

from backends.log import LogError, Producer, open_producer
from backends.spool import Spool, SpoolError
from ingest.durable import Durable
from ingest.enqueue import Enqueuer
from ingest.flush import Flusher
from ingest.spooling import Spooling, observe
from ingest.tally import Tally
from schemas.topics import Topics
from service.admin import Check, Tolerated
from service.settings import Settings, SettingsError

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
REFRESH_SECONDS = 60.0  # a topic that grew is noticed in this time
FLUSH_SECONDS = 5.0
CLOSE_SECONDS = 5.0


class _Outage(NamedTuple):
    """What an edge with a spool has for an outage of the log."""

    spool: Spool
    spooling: Spooling
    flusher: Flusher


class Outbound:
    """Raises SettingsError where the spool's folder cannot be had."""

    def __init__(self, settings: Settings, engine: sa.Engine) -> None:
        spool = _open_spool(settings)
        self._producer: Producer = open_producer(settings.log_url)
        self._tally = Tally(engine)
        self._outage = None
        if spool is not None:
            self._outage = _Outage(spool, Spooling(spool), Flusher(spool, self._producer, self._tally))
        spooling = self._outage.spooling if self._outage is not None else None
        topics = Topics(settings.topic_prefix)
        events, small, self.refused = self._enqueuers = [
            Enqueuer(self._producer, topic, settings.produce_timeout, self._tally) for topic in topics.all()
        ]
        self.events = Durable(events, spooling, self._tally)
        self.small = Durable(small, spooling, self._tally)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """From the event loop that serves."""
        self._producer.attach()
        self._tasks = [asyncio.create_task(self._keep_connected()), asyncio.create_task(self._tally.run())]
        if self._outage is not None:
            self._tasks.append(asyncio.create_task(self._outage.flusher.run(self._outage.spooling.stored)))

    async def close(self) -> None:
        """When nothing more is put: gives the spool a moment to be flushed, and keeps what is left. Takes a bound."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._outage is not None:
            with suppress(TimeoutError, LogError, SpoolError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._outage.flusher.drain()
            left = self._outage.spool.status().events
            if left:
                log.warning("events stay in the spool", extra={"events": left})
        await asyncio.to_thread(self._producer.close, CLOSE_SECONDS)
        await self._tally.close()
        if self._outage is not None:
            self._outage.spooling.close()
            self._outage.spool.close()

    def checks(self) -> dict[str, Check]:
        """For /readyz: with a spool that takes requests the log may be away; while the log is there, the spool."""
        if self._outage is None:
            return {"log": self._log_problem}
        spool = self._outage.spool
        return {
            "log": Tolerated(self._log_problem, lambda: spool.problem() is None),
            "spool": Tolerated(spool.problem, self._healthy),
        }

    async def _keep_connected(self) -> None:
        """Looks every RETRY_SECONDS, and asks the log where something has failed, else every REFRESH_SECONDS."""
        asked = float("-inf")
        while True:
            if not self._healthy() or time.monotonic() - asked >= REFRESH_SECONDS:
                asked = time.monotonic()
                await self._connect()
            await asyncio.sleep(RETRY_SECONDS)

    async def _connect(self) -> None:
        for enqueuer in self._enqueuers:
            try:
                await asyncio.to_thread(enqueuer.connect)
            except LogError as error:
                log.warning("log not connected", extra={"problem": str(error)})
            except Exception:  # there is no other way back
                log.exception("log not connected")

    def _healthy(self) -> bool:
        return all(enqueuer.healthy for enqueuer in self._enqueuers)

    def _log_problem(self) -> str | None:
        if not all(enqueuer.connected for enqueuer in self._enqueuers):
            return "not connected yet"
        try:
            self._producer.ping(2.0)
        except LogError as error:
            return str(error) or "does not answer"
        return None


def _open_spool(settings: Settings) -> Spool | None:
    if settings.spool_path is None:
        return None
    try:
        spool = Spool(settings.spool_path, settings.spool_max_bytes, settings.spool_max_age)
    except SpoolError as error:
        raise SettingsError(f"ZENSTEP_SPOOL_PATH: {error}") from None
    observe(spool)
    return spool
