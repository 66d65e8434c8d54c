"""The reader's routes: a session token, a flow of its organisation, a range, and the numbers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from backends.store.catalog import Catalog, Flow
from backends.store.queries import Queries
from readers import analytics, export, ranges
from readers.analytics import Cells
from readers.cors import Cors
from readers.endpoint import Asked, Gate, Refusal, route
from readers.keys import KeysAway
from readers.ranges import BadRange, Interval, Problem, Range, spans_of
from readers.tokens import TokenVerifier, Unauthorized
from schemas import tables as t
from schemas.ids import is_snippet_key, is_uuid, key_digest

T = TypeVar("T")


class Reader:
    """What the routes share. Everything that blocks runs on a few threads of its own."""

    def __init__(
        self, catalog: Catalog, queries: Queries, verifier: TokenVerifier, topic: str, threads: ThreadPoolExecutor
    ) -> None:
        self._catalog = catalog
        self._queries = queries
        self._verifier = verifier
        self._topic = topic
        self._threads = threads

    def routes(self, gate: Gate, cors: Cors) -> list[BaseRoute]:
        """The paths are documented."""
        return [
            route("/api/v1/flows/{flow_id}/analytics", self.find, self.analytics, gate, cors),
            route("/api/v1/flows/{flow_id}/analytics/export.csv", self.find, self.export, gate, cors),
        ]

    def not_found_route(self, gate: Gate, cors: Cors) -> BaseRoute:
        """Every path that is no route's, in the documented shape."""
        return route("/{path:path}", self.find, None, gate, cors)

    async def analytics(self, request: Request, flow: Flow, chosen: Range) -> Response:
        """GET /api/v1/flows/{id}/analytics."""
        document = await self._on_thread(self._document, flow, chosen)
        return Response(orjson.dumps(document), media_type="application/json")

    async def export(self, request: Request, flow: Flow, chosen: Range) -> Response:
        """GET /api/v1/flows/{id}/analytics/export.csv, streamed."""
        rows = iter(()) if request.method == "HEAD" else export.rows(flow, chosen, partial(self._cells, flow))
        first = await self._on_thread(next, rows, b"")
        headers = {"Content-Disposition": f'attachment; filename="{export.file_name(flow, chosen)}"'}
        return StreamingResponse(self._stream(first, rows), headers=headers, media_type="text/csv; charset=utf-8")

    async def find(self, request: Request) -> Asked:
        """Who asks, then what for. Raises Refusal: 401 and 403 before anything is said of the flow."""
        organisations = await self._organisations(request)
        flow_id = request.path_params["flow_id"]
        if not is_uuid(flow_id):
            raise Refusal(400, "Validation failed", [Problem("id", "Expected a UUID")])
        chosen = _range(request)
        found = await self._on_thread(self._look_up, organisations, flow_id.lower())
        if found is None:
            raise Refusal(404, "Not found")
        return Asked(*found, chosen)

    def _look_up(self, organisations: list[str], flow_id: str) -> tuple[Flow, int] | None:
        wanted = [(organisation, flow_id) for organisation in organisations]
        flows = self._catalog.flows(wanted) if wanted else []
        if not flows:
            return None
        # Should two organisations have a flow of one id, it is the older membership's.
        flow = min(flows, key=lambda flow: organisations.index(flow.organisation))
        return flow, self._catalog.limits(flow.organisation)["analytics"]

    async def _organisations(self, request: Request) -> list[str]:
        """Those the bearer may read. A user of several without a choice in the token may read each of theirs."""
        scheme, _, credential = request.headers.get("authorization", "").partition(" ")
        credential = credential.strip() if scheme.lower() == "bearer" else ""
        if "authorization" not in request.headers:
            credential = request.query_params.get("key", "")
        if is_snippet_key(credential):
            known = await self._on_thread(self._catalog.find_key, key_digest(credential))
            raise Refusal(403, "Forbidden") if known is not None else Refusal(401, "Unauthorized")
        if "authorization" not in request.headers:
            raise Refusal(401, "Unauthorized")
        try:
            session = await self._verifier.verify(credential)
        except Unauthorized:
            raise Refusal(401, "Unauthorized") from None
        except KeysAway:
            # A 401 would log a user out for an outage elsewhere.
            raise Refusal(503, "Service unavailable") from None
        theirs = await self._on_thread(self._catalog.memberships, session.user)
        if session.organisation is None:
            return theirs
        return [organisation for organisation in theirs if organisation == session.organisation]

    def _document(self, flow: Flow, chosen: Range) -> dict[str, Any]:
        # Asked first: what is counted between the two questions may only make the promise too modest.
        through = self._queries.processed_through(flow.organisation, self._topic)
        whole = self._read(flow, [Interval(chosen.start, chosen.end)], custom=[flow.flow_id, t.NO_FLOW])
        by_interval = analytics.series(chosen, partial(self._cells, flow))
        return analytics.document(flow, chosen, whole, by_interval, through, time.time_ns() // 1_000_000)

    def _cells(self, flow: Flow, intervals: Sequence[Interval]) -> Cells:
        return self._read(flow, intervals, custom=[])

    def _read(self, flow: Flow, intervals: Sequence[Interval], custom: Sequence[str]) -> Cells:
        """Of intervals that follow each other. `custom` are the flows whose custom events are wanted."""
        flows = [flow.flow_id, *custom]
        open_days = self._queries.open_days(flow.organisation, flows, intervals[0].start, intervals[-1].end)
        stretch = spans_of(intervals, open_days)
        cells = partial(self._queries.cells, organisation=flow.organisation, spans=stretch)
        return Cells(
            counts=cells(t.counts, flows=[flow.flow_id]),
            cohorts=cells(t.cohorts, flows=[flow.flow_id]),
            custom_events=cells(t.custom_events, flows=custom) if custom else [],
        )

    async def _stream(self, chunk: bytes, rows: Iterator[bytes]) -> AsyncIterator[bytes]:
        while chunk:
            yield chunk
            chunk = await self._on_thread(next, rows, b"")

    async def _on_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _range(request: Request) -> Range:
    query = request.query_params
    try:
        return ranges.parse(
            query.get("from"), query.get("to"), query.get("interval"), query.get("timezone"), datetime.now(UTC)
        )
    except BadRange as error:
        raise Refusal(400, "Validation failed", error.problems) from None
