"""The edge's routes. `Edge.submit` is the hot path, and reads from the key to the 202 in order."""

import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import orjson
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from backends.log import LogError, RecordTooLarge
from ingest import answers, cors, decode
from ingest.answers import Headers, Refusal
from ingest.body import ClientGone, read_body
from ingest.enqueue import Enqueuer
from ingest.keys import KeyCache, find_key
from schemas import records
from schemas.ids import uuid7
from service import metrics

log = logging.getLogger(__name__)

Handler = Callable[[Scope, Receive], Awaitable[bytes]]


class Edge:
    """What the routes share: the keys, the hasher, the two topics."""

    def __init__(self, keys: KeyCache, hasher: decode.UserHasher, events: Enqueuer, heartbeats: Enqueuer) -> None:
        self._keys = keys
        self._hasher = hasher
        self._events = events
        self._heartbeats = heartbeats

    async def submit(self, scope: Scope, receive: Receive) -> bytes:
        """POST /api/v1/events."""
        key = await self._keys.resolve(find_key(scope["headers"], scope["query_string"]))
        body = await read_body(scope["headers"], receive)
        request = decode.decode(body)
        metrics.events_received.inc(len(request.events))
        envelope = decode.envelope(request, key.organisation, key.environment, _now(), self._hasher)
        await _put(self._events, key.organisation, records.encode(envelope))
        metrics.events_accepted.inc(len(request.events))
        return orjson.dumps({"accepted": len(request.events)})

    async def heartbeat(self, scope: Scope, receive: Receive) -> bytes:
        """GET and POST /api/v1/heartbeat. A body is not looked at."""
        key = await self._keys.resolve(find_key(scope["headers"], scope["query_string"]))
        now = _now()
        beat = records.Heartbeat(
            v=records.VERSION,
            org=key.organisation,
            received=now,
            env=key.environment,
            id=uuid7(now),
            host=_page_host(scope["headers"]),
        )
        await _put(self._heartbeats, key.organisation, records.encode(beat))
        metrics.heartbeats_accepted.inc()
        return b'{"ok":true}'

    def routes(self) -> list[BaseRoute]:
        """To be mounted at the root; the paths are documented."""
        return [
            _route("/api/v1/events", {"POST": (self.submit, 202)}),
            _route("/api/v1/heartbeat", {"GET": (self.heartbeat, 200), "POST": (self.heartbeat, 200)}),
        ]


def not_found_route() -> BaseRoute:
    """Every path that is no route's, in the documented shape."""
    return _route("/{path:path}", {})


class _Endpoint:
    """Calls the handler of the method and turns what comes of it into an answer. Raw ASGI: this is the hot path."""

    def __init__(self, path: str, methods: dict[str, tuple[Handler, int]]) -> None:
        self._path = path
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        method = scope["method"]
        try:
            status, body, headers = await self._answer(method, scope, receive)
        except Refusal as refusal:
            status, body, headers = refusal.status, refusal.body, refusal.headers
            metrics.refusals.labels(refusal.reason).inc()
        except ClientGone:
            metrics.refusals.labels("client_gone").inc()
            return
        except Exception:
            log.exception("request failed", extra={"route": self._path})
            status, body, headers = 500, b'{"error":"Internal server error"}', []
            metrics.refusals.labels("fault").inc()
        await answers.send_answer(send, status, body, [*headers, *cors.answer_headers(scope["headers"])])
        known = method if method in self._methods else "other"
        metrics.requests.labels(self._path, known, str(status)).inc()
        metrics.http_seconds.labels(self._path).observe(time.perf_counter() - started)

    async def _answer(self, method: str, scope: Scope, receive: Receive) -> tuple[int, bytes, Headers]:
        if method in self._methods:
            handler, status = self._methods[method]
            return status, await handler(scope, receive), []
        if not self._methods:
            raise answers.not_found()
        if method == "OPTIONS":
            return 204, b"", cors.preflight_headers(self._methods)
        raise answers.method_not_allowed(self._methods)


def _route(path: str, methods: dict[str, tuple[Handler, int]]) -> BaseRoute:
    return Route(path, _Endpoint(path, methods))


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
