"""One path of the reader: how a request is counted against a limit, and how every outcome becomes an answer."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from backends.limits import Limiter
from backends.store.catalog import Flow
from backends.store.engine import ENVIRONMENT_ERRORS
from readers.cors import METHODS, Cors
from readers.ranges import Problem, Range
from schemas.limits import STRANGERS, Verdict, bucket_key, stranger_key
from service import metrics
from service.clients import Clients

log = logging.getLogger(__name__)


class Refusal(Exception):
    """An answer that is not a 200."""

    def __init__(self, status: int, error: str, details: list[Problem] | None = None) -> None:
        super().__init__(error)
        content: dict[str, Any] = {"error": error}
        if details:
            content["details"] = [problem._asdict() for problem in details]
        headers = {"Retry-After": "5"} if status == 503 else None
        self.response = Response(orjson.dumps(content), status, headers, "application/json")


class Asked(NamedTuple):
    """A flow that the bearer may read, and how many requests a minute its organisation has; and the range."""

    flow: Flow
    per_minute: int
    range: Range


Find = Callable[[Request], Awaitable[Asked]]
Handler = Callable[[Request, Flow, Range], Awaitable[Response]]


class Gate:
    """Counts every request but OPTIONS.

    One for a flow of the bearer's counts against the organisation of that flow. Every other, which is a 400, 401, 403,
    404 or 405, counts against the address of its client; a 500 or a 503 is no fault of the client's and costs nothing.
    """

    def __init__(self, limiter: Limiter, clients: Clients) -> None:
        self._limiter = limiter
        self._clients = clients

    async def count(self, asked: Asked) -> Verdict:
        return await self._limiter.hit(bucket_key(asked.flow.organisation, "analytics"), asked.per_minute)

    async def count_stranger(self, scope: Scope, hits: int) -> Verdict:
        return await self._limiter.hit(stranger_key(self._clients.digest(scope)), STRANGERS, hits)


class Endpoint:
    """Answers GET, HEAD and OPTIONS; without a handler, 404 to everything."""

    def __init__(self, path: str, find: Find, handler: Handler | None, gate: Gate, cors: Cors) -> None:
        self._path = path
        self._find = find
        self._handler = handler
        self._gate = gate
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = Request(scope, receive)
        if request.method == "OPTIONS" and self._handler is not None:
            response = Response(status_code=204, headers={"Allow": f"{METHODS}, OPTIONS"})
            response.headers.update(self._cors.preflight_headers(request.headers))
        else:
            response = await self._counted(request)
        response.headers.update(self._cors.answer_headers(request.headers))
        try:
            # What goes wrong in here comes out, so that the server cuts the connection: a file that ends early must
            # not look whole.
            await response(scope, receive, send)
        finally:
            method = request.method if request.method in ("GET", "HEAD", "OPTIONS") else "other"
            metrics.requests.labels(self._path, method, str(response.status_code)).inc()
            metrics.http_seconds.labels(self._path).observe(time.perf_counter() - started)

    async def _counted(self, request: Request) -> Response:
        verdict: Verdict | None = None
        try:
            handler = self._handler_of(request)
            asked = await self._find(request)
            verdict = await self._gate.count(asked)
            response = _over(verdict) if verdict.retry_after else await handler(request, asked.flow, asked.range)
        except Refusal as refusal:
            response = refusal.response
        except ENVIRONMENT_ERRORS:
            response = Refusal(503, "Service unavailable").response
        except Exception:
            log.exception("request failed", extra={"route": self._path})
            response = Refusal(500, "Internal server error").response
        if verdict is None:
            verdict = await self._gate.count_stranger(request.scope, hits=0 if response.status_code >= 500 else 1)
            response = _over(verdict) if verdict.retry_after else response
        response.raw_headers.extend(verdict.headers())
        return response

    def _handler_of(self, request: Request) -> Handler:
        if self._handler is None:
            raise Refusal(404, "Not found")
        if request.method not in ("GET", "HEAD"):
            refusal = Refusal(405, "Method not allowed")
            refusal.response.headers["Allow"] = f"{METHODS}, OPTIONS"
            raise refusal
        return self._handler


def route(path: str, find: Find, handler: Handler | None, gate: Gate, cors: Cors) -> BaseRoute:
    return Route(path, Endpoint(path, find, handler, gate, cors))


def _over(verdict: Verdict) -> Response:
    return Response(verdict.body(), 429, media_type="application/json")
