"""The edge's routes. `Edge.submit` is the hot path, and reads from the body to the 202 in order."""

import time
from urllib.parse import urlsplit

import orjson
from starlette.routing import BaseRoute

from backends.log import LogError, RecordTooLarge
from ingest import answers, decode
from ingest.body import read_body
from ingest.endpoint import Answer, Call, Operation, route
from ingest.enqueue import Enqueuer
from ingest.gate import Gate
from ingest.openapi import openapi_route
from schemas import records
from schemas.ids import uuid7
from service import metrics


class Edge:
    """What the routes share: the gate, the hasher, the topics."""

    def __init__(self, gate: Gate, hasher: decode.UserHasher, events: Enqueuer, small: Enqueuer) -> None:
        self._gate = gate
        self._hasher = hasher
        self._events = events
        self._small = small

    async def submit(self, call: Call) -> Answer:
        """POST /api/v1/events."""
        body = await read_body(call.scope["headers"], call.receive)
        request = decode.decode(body)
        metrics.events_received.inc(len(request.events))
        envelope = decode.envelope(request, call.key.organisation, call.key.environment, _now(), self._hasher)
        await _put(self._events, call.key.organisation, records.encode(envelope))
        metrics.events_accepted.inc(len(request.events))
        return Answer(202, orjson.dumps({"accepted": len(request.events)}))

    async def heartbeat(self, call: Call) -> Answer:
        """GET and POST /api/v1/heartbeat. A body is not looked at; HEAD is no sign of life."""
        if call.scope["method"] == "HEAD":
            return Answer(200, b'{"ok":true}')
        now = _now()
        beat = records.Heartbeat(
            v=records.VERSION,
            org=call.key.organisation,
            received=now,
            env=call.key.environment,
            id=uuid7(now),
            host=_page_host(call.scope["headers"]),
        )
        await _put(self._small, call.key.organisation, records.encode(beat))
        metrics.heartbeats_accepted.inc()
        return Answer(200, b'{"ok":true}')

    def routes(self) -> list[BaseRoute]:
        """To be mounted at the root; the paths are documented."""
        beat = Operation("heartbeat", self.heartbeat)
        return [
            route("/api/v1/events", self._gate, POST=Operation("events", self.submit)),
            route("/api/v1/heartbeat", self._gate, GET=beat, POST=beat),
            openapi_route(self._gate),
        ]


def not_found_route(gate: Gate) -> BaseRoute:
    """Every path that is no route's, in the documented shape."""
    return route("/{path:path}", gate)


async def _put(enqueuer: Enqueuer, organisation: str, line: bytes) -> None:
    try:
        await enqueuer.put(organisation, line)
    except RecordTooLarge:
        raise answers.too_large() from None
    except LogError:
        raise answers.unavailable("log_away") from None


def _page_host(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The host of the page, from Origin or else Referer; never the client's address."""
    found = dict(headers)
    page = found.get(b"origin") or found.get(b"referer")
    if page is None:
        return None
    try:
        host = urlsplit(page.decode("ascii")).hostname
    except ValueError:
        return None
    return host[:255] if host else None


def _now() -> int:
    return time.time_ns() // 1_000_000
