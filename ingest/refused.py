"""What the edge refused goes to its own topic, for the operator: the reason, and what may be kept of the body.

Fire and forget: the answer is sent by then, so nothing here can delay or fail it. What cannot be noted is counted.
"""

import asyncio
import hashlib
import logging
from codecs import BOM_UTF8
from typing import Any, NamedTuple

import msgspec

from backends.log import LogError
from ingest.answers import Refusal
from ingest.decode import UserHasher, page_address
from ingest.enqueue import Enqueuer
from schemas import records
from schemas.events import MAX_EVENTS
from schemas.privacy import Treatment
from service import metrics

log = logging.getLogger(__name__)

STATUSES = {400, 413, 415}
MAX_KEPT_BYTES = 32 * 1024
MAX_TEXT = 255
MAX_WAITING = 64
CLOSE_SECONDS = 2.0

_PEOPLE = ("userId", "anonymousId")
_FIELDS = (
    *("eventType", "id", "flowId", "stepId", "sessionId", *_PEOPLE, "name", "timestamp", "sentAt", "url"),
    *("completed", "found"),  # of the small writes
)
"""All that is kept, where it is text, a number or a truth value; `data` and fingerprints may hold anything."""


class Case(NamedTuple):
    """A refused request of an organisation. `received` is epoch ms; `body` is what was read of it, if it was."""

    organisation: str
    environment: str | None
    asked: Treatment | None
    route: str
    received: int
    refusal: Refusal
    size: int | None
    body: bytes | None


class Refused:
    """For one event loop. At most MAX_WAITING wait for the log; further ones are not noted."""

    def __init__(self, enqueuer: Enqueuer, hasher: UserHasher) -> None:
        self._enqueuer = enqueuer
        self._hasher = hasher
        self._waiting: set[asyncio.Task[None]] = set()

    def note(self, case: Case) -> None:
        """Never raises, never waits."""
        if len(self._waiting) >= MAX_WAITING:
            metrics.refused_lost.labels("full").inc()
            return
        task = asyncio.get_running_loop().create_task(self._put(case))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def close(self) -> None:
        """Gives those that wait a moment."""
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=CLOSE_SECONDS)

    async def _put(self, case: Case) -> None:
        try:
            await self._enqueuer.put(case.organisation, records.encode(record(case, self._hasher)))
        except LogError:
            metrics.refused_lost.labels("log_away").inc()
        except Exception:
            metrics.refused_lost.labels("fault").inc()
            log.exception("refused request not noted", extra={"route": case.route})


def record(case: Case, hasher: UserHasher) -> records.Refused:
    """What is kept of it. Of a body that is not JSON, or whose browser asks for privacy and gets it: its digest."""
    return records.Refused(
        v=records.VERSION,
        org=case.organisation,
        received=case.received,
        env=case.environment,
        route=case.route,
        reason=case.refusal.reason,
        details=[records.Detail(*problem) for problem in case.refusal.details],
        size=case.size,
        sha256=hashlib.sha256(case.body).hexdigest() if case.body is not None else None,
        body=_Kept(case, hasher).body(),
    )


class _Kept:
    def __init__(self, case: Case, hasher: UserHasher) -> None:
        self._case = case
        self._hasher = hasher

    def body(self) -> msgspec.Raw | msgspec.UnsetType:
        if not self._case.body or self._case.asked == "drop":
            return msgspec.UNSET
        try:
            given = msgspec.json.decode(self._case.body.removeprefix(BOM_UTF8))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.UNSET
        events = given.get("events") if isinstance(given, dict) else given
        kept = self._fields(given)
        if isinstance(events, list):
            kept["events"] = self._events(events, MAX_KEPT_BYTES - len(msgspec.json.encode(kept)) - len(',"events":[]'))
        return msgspec.Raw(msgspec.json.encode(kept))

    def _events(self, events: list[Any], room: int) -> list[dict[str, Any]]:
        """The first ones that have room."""
        kept = []
        for event in events[:MAX_EVENTS]:
            fields = self._fields(event)
            room -= len(msgspec.json.encode(fields)) + 1
            if room < 0:
                break
            kept.append(fields)
        return kept

    def _fields(self, given: Any) -> dict[str, Any]:
        if not isinstance(given, dict):
            return {}
        found = {name: self._value(name, given[name]) for name in _FIELDS if name in given}
        return {name: value for name, value in found.items() if value is not None}

    def _value(self, name: str, value: Any) -> str | int | float | None:
        if name in _PEOPLE and self._case.asked is not None:
            return None
        if name == "userId":
            return self._hasher.hash(self._case.organisation, value) if isinstance(value, str) else None
        if isinstance(value, str):
            return (page_address(value) or "")[:MAX_TEXT] if name == "url" or "://" in value else value[:MAX_TEXT]
        return value if isinstance(value, int | float) else None
