"""Puts into the log what is spooled, in the order it was spooled, while live requests go to the log beside it."""

import asyncio
import logging
import time
from collections.abc import Sequence

from backends.log import LogError, LogUnavailable, Producer
from backends.spool import Entry, Spool, SpoolError
from ingest.grouping import grouped
from ingest.tally import Tally
from schemas.ids import partition_of
from service import metrics

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0

Place = tuple[str, int]
"""A topic and a partition."""
Events = dict[tuple[str, str, int], int]
"""How many, by organisation, topic and partition."""


class Flusher:
    """For one spool. A batch is forgotten when the log has all of it; until then it is put in again, ids and all.

    `set_aside` is how many lines were too large for their topic, `events_set_aside` how many events are in them.
    """

    def __init__(self, spool: Spool, producer: Producer, tally: Tally | None = None) -> None:
        self._spool = spool
        self._producer = producer
        self._tally = tally
        self.set_aside = self.events_set_aside = 0

    async def run(self, stored: asyncio.Event) -> None:
        """For ever: drains whenever there is something, and waits where the log or the disk does not do it."""
        problem = None
        while True:
            stored.clear()
            try:
                await self.drain()
            except (LogError, SpoolError) as error:
                if type(error).__name__ != problem:
                    problem = type(error).__name__
                    log.warning("spool not flushed, trying on", extra={"kind": problem})
            except Exception:  # this loop is the only way out of the spool
                log.exception("spool not flushed, trying on")
            else:
                problem = None
                await stored.wait()
                continue
            await asyncio.sleep(RETRY_SECONDS)

    async def drain(self) -> None:
        """Until nothing is spooled. Raises LogError, SpoolError; what was not put into the log is still spooled."""
        routes: dict[str, tuple[int, int]] = {}
        while True:
            entries, position = await asyncio.to_thread(self._spool.read)
            if not entries:
                return
            started = time.perf_counter()
            for topic in {entry.topic for entry in entries} - routes.keys():
                routes[topic] = await asyncio.to_thread(self._route, topic)
            events = await self._put(entries, routes)
            await asyncio.to_thread(self._spool.forget, position, entries)
            for (organisation, topic, partition), count in events.items():
                if self._tally is not None:
                    self._tally.add(organisation, topic, partition, "flushed", count)
            metrics.events_flushed.inc(sum(events.values()))
            log.info(
                "flushed",
                extra={"events": sum(events.values()), "seconds": round(time.perf_counter() - started, 2)},
            )

    def _route(self, topic: str) -> tuple[int, int]:
        """Its partitions and the bytes a record may have. Raises LogError while the log is away."""
        return self._producer.partitions(topic), self._producer.max_record_bytes(topic)

    async def _put(
        self, entries: Sequence[Entry], routes: dict[str, tuple[int, int]]
    ) -> dict[tuple[str, str, int], int]:
        """What the log now has. Raises LogError."""
        lines: dict[Place, list[bytes]] = {}
        events: Events = {}
        too_large: list[Entry] = []
        for entry in entries:
            partitions, most = routes[entry.topic]
            if len(entry.line) > most:
                too_large.append(entry)
                continue
            partition = partition_of(entry.organisation, partitions)
            lines.setdefault((entry.topic, partition), []).append(entry.line)
            key = entry.organisation, entry.topic, partition
            events[key] = events.get(key, 0) + entry.events
        sent: list[asyncio.Future[int]] = []
        for topic in routes:
            records = [
                (partition, b"\n".join(group))
                for (other, partition), theirs in lines.items()
                if other == topic
                for group in grouped(theirs, len, routes[topic][1])
            ]
            sent += map(asyncio.wrap_future, self._producer.produce_all(topic, records))
        for outcome in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(outcome, LogError):
                raise outcome
            if isinstance(outcome, BaseException):
                raise LogUnavailable(type(outcome).__name__) from outcome
        for entry in too_large:  # only now: until the batch is in the log, it is put in again and again
            await asyncio.to_thread(self._spool.set_aside, entry)
            self.set_aside += 1
            self.events_set_aside += entry.events
            metrics.spool_set_aside.inc()
            log.error("spooled line is too large for its topic and set aside", extra={"topic": entry.topic})
        return events
