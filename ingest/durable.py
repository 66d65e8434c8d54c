"""The promise behind every 2xx to a write: the log has it, or the disk."""

import logging
import time

from backends.log import LogError, RecordTooLarge
from backends.spool import Entry, SpoolError
from backends.telling import Told
from ingest import answers
from ingest.enqueue import Enqueuer
from ingest.spooling import Spooling
from ingest.tally import Tally
from service import metrics

log = logging.getLogger(__name__)

NO_PARTITION = -1


class Durable:
    """For one topic. Without a spool what the log does not take is a 503."""

    def __init__(self, enqueuer: Enqueuer, spooling: Spooling | None = None, tally: Tally | None = None) -> None:
        self._enqueuer = enqueuer
        self._spooling = spooling
        self._tally = tally

    async def put(self, organisation: str, line: bytes, events: int = 1) -> None:
        """Returns when the log has acknowledged it, else when it is in the spool. Raises a 413 and a 503 Refusal."""
        try:
            await self._enqueuer.put(organisation, line, events)
        except LogError as error:
            await self.rescue(error, organisation, line, events)

    def hand_on(self, organisation: str, line: bytes, events: int, told: Told[None]) -> None:
        """`told` hears that the log has it, or a LogError; it then goes on with `rescue`."""
        self._enqueuer.hand_on(organisation, line, events, told)

    async def rescue(self, error: Exception, organisation: str, line: bytes, events: int) -> None:
        """Returns when what the log did not take is in the spool. Raises a 413 and a 503 Refusal.

        A line whose fate in the log is not known is spooled too: where the log has it twice, it is counted once.
        """
        if isinstance(error, RecordTooLarge):
            raise answers.too_large()
        if self._spooling is None:
            raise answers.unavailable("log_away")
        topic, most = self._enqueuer.topic, self._enqueuer.max_bytes
        if most is not None and len(line) > most:
            raise answers.too_large()
        try:
            await self._spooling.put(Entry(topic, organisation, time.time_ns() // 1_000_000, events, line))
        except SpoolError as problem:
            kind = type(problem).__name__
            metrics.spool_refused.labels(kind).inc()
            log.warning("not spooled", extra={"kind": kind, "problem": str(problem)})
            raise answers.unavailable("spool") from None
        if self._tally is not None:
            self._tally.add(organisation, topic, NO_PARTITION, "spooled", events)
