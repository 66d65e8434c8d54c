"""The edge's routes. The hot one is ingest/submit.py."""

import time
from urllib.parse import urlsplit

from starlette.routing import BaseRoute

from backends.store.small import SmallReads
from ingest.answers import Answer
from ingest.call import Call
from ingest.decode import UserHasher
from ingest.durable import Durable
from ingest.endpoint import Operation, route
from ingest.flows import FlowCache, FlowRoutes
from ingest.gate import Gate
from ingest.openapi import openapi_route
from ingest.reads import StoreReads
from ingest.refused import Refused
from ingest.small import SmallRoutes
from ingest.submit import Submit
from schemas import records
from schemas.ids import uuid7
from service import metrics


class Edge:
    """What the routes share: the gate, the hasher, the topics."""

    def __init__(
        self,
        gate: Gate,
        hasher: UserHasher,
        events: Durable,
        small: Durable,
        refused: Refused,
        flows: FlowCache,
        store: SmallReads,
        reads: StoreReads,
    ) -> None:
        self._gate = gate
        self._refused = refused
        self._submit = Submit(hasher, events)
        self._small = small
        self._flow_routes = FlowRoutes(flows)
        self._small_routes = SmallRoutes(flows, hasher, small, self._submit, store, reads)

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
        await self._small.put(call.key.organisation, records.encode(beat))
        metrics.heartbeats_accepted.inc()
        return Answer(200, b'{"ok":true}')

    def routes(self) -> list[BaseRoute]:
        """To be mounted at the root; the paths are documented."""
        flows, small = self._flow_routes, self._small_routes
        beat = Operation("heartbeat", self.heartbeat)
        paths: dict[str, dict[str, Operation]] = {
            "/events": {"POST": Operation("events", self._submit)},
            "/heartbeat": {"GET": beat, "POST": beat},
            "/flows": {"GET": Operation("flows", flows.all)},
            "/flows/{id}": {"GET": Operation("flows", flows.one)},
            "/flows/{id}/complete": {"POST": Operation("flows", small.complete)},
            "/flows/{id}/checklist-progress": {
                "GET": Operation("flows", small.progress),
                "POST": Operation("flows", small.report_progress),
            },
            "/steps/{id}/fingerprint": {"POST": Operation("fingerprint", small.fingerprint)},
            "/steps/{id}/health": {"POST": Operation("health", small.health)},
            "/snippet-status": {"GET": Operation("status", small.status)},
        }
        routes = [route(f"/api/v1{path}", self._gate, self._refused, **by) for path, by in paths.items()]
        return [*routes, openapi_route(self._gate)]


def not_found_route(gate: Gate) -> BaseRoute:
    """Every path that is no route's, in the documented shape."""
    return route("/{path:path}", gate)


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
