"""The reader's routes: a session token, a flow of its organisation, a range, and the numbers."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from backends.store.catalog import Catalog, Flow
from backends.store.engine import ENVIRONMENT_ERRORS
from backends.store.queries import Queries
from readers import analytics, export, ranges
from readers.analytics import Cells
from readers.jwks import KeysAway
from readers.ranges import BadRange, Interval, Problem, Range, Span, spans, spans_of
from readers.tokens import TokenVerifier, Unauthorized
from schemas import tables as t
from schemas.ids import is_snippet_key, is_uuid, key_digest
from service import metrics

log = logging.getLogger(__name__)

T = TypeVar("T")


class Refusal(Exception):
    """An answer that is not a 200."""

    def __init__(self, status: int, error: str, details: list[Problem] | None = None) -> None:
        super().__init__(error)
        content: dict[str, Any] = {"error": error}
        if details:
            content["details"] = [problem._asdict() for problem in details]
        headers = {"Retry-After": "5"} if status == 503 else None
        self.response = Response(orjson.dumps(content), status, headers, "application/json")


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

    def routes(self) -> list[BaseRoute]:
        """The paths are documented."""
        return [
            _route("/api/v1/flows/{flow_id}/analytics", self.analytics),
            _route("/api/v1/flows/{flow_id}/analytics/export.csv", self.export),
        ]

    async def analytics(self, request: Request) -> Response:
        """GET /api/v1/flows/{id}/analytics."""
        flow, chosen = await self._asked(request)
        document = await self._on_thread(self._document, flow, chosen)
        return Response(orjson.dumps(document), media_type="application/json")

    async def export(self, request: Request) -> Response:
        """GET /api/v1/flows/{id}/analytics/export.csv, streamed."""
        flow, chosen = await self._asked(request)
        rows = iter(()) if request.method == "HEAD" else export.rows(flow, chosen, partial(self._cells, flow))
        first = await self._on_thread(next, rows, b"")
        headers = {"Content-Disposition": f'attachment; filename="{export.file_name(flow, chosen)}"'}
        return StreamingResponse(self._stream(first, rows), headers=headers, media_type="text/csv; charset=utf-8")

    async def _asked(self, request: Request) -> tuple[Flow, Range]:
        """Who asks, then what for. Raises Refusal: 401 and 403 before anything is said of the flow."""
        organisations = await self._organisations(request)
        flow_id = request.path_params["flow_id"]
        if not is_uuid(flow_id):
            raise Refusal(400, "Validation failed", [Problem("id", "Expected a UUID")])
        query = request.query_params
        try:
            chosen = ranges.parse(
                query.get("from"), query.get("to"), query.get("interval"), query.get("timezone"), datetime.now(UTC)
            )
        except BadRange as error:
            raise Refusal(400, "Validation failed", error.problems) from None
        wanted = [(organisation, flow_id.lower()) for organisation in organisations]
        flows = await self._on_thread(self._catalog.flows, wanted) if wanted else []
        if not flows:
            raise Refusal(404, "Not found")
        # Should two organisations have a flow of one id, it is the older membership's.
        return min(flows, key=lambda flow: organisations.index(flow.organisation)), chosen

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
        whole = self._read(flow, spans(chosen.start, chosen.end), custom=[flow.flow_id, t.NO_FLOW])
        by_interval = analytics.series(chosen, partial(self._cells, flow))
        return analytics.document(flow, chosen, whole, by_interval, through, time.time_ns() // 1_000_000)

    def _cells(self, flow: Flow, intervals: Sequence[Interval]) -> Cells:
        return self._read(flow, spans_of(intervals), custom=[])

    def _read(self, flow: Flow, stretch: Sequence[Span], custom: Sequence[str]) -> Cells:
        """`custom` are the flows whose custom events are wanted."""
        cells = partial(self._queries.cells, organisation=flow.organisation, spans=stretch)
        return Cells(
            counts=cells(t.counts, flows=[flow.flow_id]),
            cohorts=cells(t.cohorts, flows=[flow.flow_id]),
            cohort_steps=cells(t.cohort_steps, flows=[flow.flow_id]),
            sketches=cells(t.sketches, flows=[flow.flow_id, *custom]),
            custom_events=cells(t.custom_events, flows=custom) if custom else [],
        )

    async def _stream(self, chunk: bytes, rows: Iterator[bytes]) -> AsyncIterator[bytes]:
        while chunk:
            yield chunk
            chunk = await self._on_thread(next, rows, b"")

    async def _on_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


class _Endpoint:
    """Answers GET and HEAD, and turns refusals and faults into their answers."""

    def __init__(self, path: str, handler: Callable[[Request], Awaitable[Response]]) -> None:
        self._path = path
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = Request(scope, receive)
        response = await self._respond(request)
        try:
            # What goes wrong in here comes out, so that the server cuts the connection: a file that ends early must
            # not look whole.
            await response(scope, receive, send)
        finally:
            method = request.method if request.method in ("GET", "HEAD") else "other"
            metrics.requests.labels(self._path, method, str(response.status_code)).inc()
            metrics.http_seconds.labels(self._path).observe(time.perf_counter() - started)

    async def _respond(self, request: Request) -> Response:
        try:
            if request.method not in ("GET", "HEAD"):
                refusal = Refusal(405, "Method not allowed")
                refusal.response.headers["Allow"] = "GET, HEAD"
                raise refusal
            return await self._handler(request)
        except Refusal as refusal:
            return refusal.response
        except ENVIRONMENT_ERRORS:
            return Refusal(503, "Service unavailable").response
        except Exception:
            log.exception("request failed", extra={"route": self._path})
            return Refusal(500, "Internal server error").response


async def not_found(request: Request, _: Exception) -> Response:
    """Every path that is no route's, in the documented shape."""
    return Refusal(404, "Not found").response


def _route(path: str, handler: Callable[[Request], Awaitable[Response]]) -> BaseRoute:
    return Route(path, _Endpoint(path, handler))
