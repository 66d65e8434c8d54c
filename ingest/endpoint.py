"""One path of the edge: its methods, the gate before them, and how every outcome becomes an answer. Raw ASGI."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from backends.store.keys import Key
from ingest import answers, cors
from ingest.answers import Refusal
from ingest.body import ClientGone, body_at_hand, read_body
from ingest.gate import Gate
from ingest.privacy import treatment
from ingest.problems import Problem
from ingest.refused import STATUSES, Case, Refused
from schemas.ids import is_uuid
from schemas.limits import Verdict
from service import metrics
from service.counts import Count
from service.cycle import direct

log = logging.getLogger(__name__)

NOBODY = Key("")  # whose requests those are that need no key


class Call(msgspec.Struct):
    """A request that passed the gate."""

    key: Key
    scope: Scope
    receive: Receive
    at_hand: bytes | None = None  # the body as it was sent, where all of it has come
    read: bytes | None = None

    async def body(self) -> bytes:
        """Raises the Refusals of read_body, and ClientGone. A body that is refused later is noted as `read`."""
        if self.at_hand is None:
            self.read = await read_body(self.scope["headers"], self.receive)
        else:
            self.read = body_at_hand(self.scope["headers"], self.at_hand)
        return self.read

    def path_id(self, name: str) -> str:
        """A UUID of the path, lower-case. Raises a 400 Refusal for any other form (documented)."""
        text: str = self.scope["path_params"][name]
        if not is_uuid(text):
            raise answers.invalid([Problem("id", "Expected a UUID")])
        return text.lower()


class Answer(msgspec.Struct, frozen=True):
    """A 2xx or a 304."""

    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()


class Operation(msgspec.Struct, frozen=True):
    """What a method does, and the bucket it counts in. Without one it is for everybody, and counts by address."""

    bucket: str | None
    handler: Callable[[Call], Awaitable[Answer]]


class Endpoint:
    """HEAD is GET without its body. OPTIONS asks nobody."""

    def __init__(self, path: str, operations: dict[str, Operation], gate: Gate, refused: Refused | None) -> None:
        self._path = path
        self._refused = refused
        self.operations = operations
        self._gate = gate
        self._allowed = [*operations, *(["HEAD"] if "GET" in operations else []), "OPTIONS"]
        self._seconds = metrics.http_seconds.labels(path)
        self._answered: dict[tuple[str, int], Count] = {}  # by method and status: as few as of either

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        method = scope["method"]
        headers: Sequence[tuple[bytes, bytes]]
        limits: Verdict | None = None
        call = refused = None
        try:
            if method == "OPTIONS" and self.operations:
                status, body, headers = 204, b"", cors.preflight_headers(self._allowed, scope["headers"])
            else:
                operation = self.operations.get("GET" if method == "HEAD" else method)
                if operation is None:
                    limits = await self._gate.stranger(scope)
                    raise answers.method_not_allowed(self._allowed) if self.operations else answers.not_found()
                if operation.bucket is None:
                    key, limits = NOBODY, await self._gate.stranger(scope)
                else:
                    admitted = await self._gate.admit(scope, operation.bucket)
                    key, limits = admitted.key, admitted.limits
                cycle = direct(send)
                call = Call(key, scope, receive, cycle.whole_body() if cycle is not None else None)
                answer = await operation.handler(call)
                status, body, headers = answer.status, answer.body, answer.headers
        except Refusal as refusal:
            status, body, headers = refusal.status, refusal.body, refusal.headers
            # Its frames hold this one, the body and what was made of it: much memory, until the collector comes by.
            refused = refusal.with_traceback(None)
            refused.__context__ = None
            metrics.refusals.labels(refusal.reason).inc()
        except ClientGone:
            metrics.refusals.labels("client_gone").inc()
            return
        except Exception:
            log.exception("request failed", extra={"route": self._path})
            status, body, headers = 500, b'{"error":"Internal server error"}', []
            metrics.refusals.labels("fault").inc()
        await answers.send_answer(send, status, body, headers, limits, scope["headers"])
        if refused is not None and call is not None and self._refused is not None and status in STATUSES:
            self._refused.note(_case(call, self._path, refused))
        self._count(method if method in self._allowed else "other", status)
        self._seconds.observe(time.perf_counter() - started)

    def _count(self, method: str, status: int) -> None:
        answered = self._answered.get((method, status))
        if answered is None:
            answered = self._answered[method, status] = metrics.requests.labels(self._path, method, str(status))
        answered.inc()


def _case(call: Call, path: str, refusal: Refusal) -> Case:
    """Without the request's headers: of them, an operator is shown none."""
    body = refusal.given if refusal.given is not None else call.read
    size = len(body) if body is not None else None
    for name, value in call.scope["headers"]:
        if name == b"content-length" and value.isdigit() and len(value) < 16:
            size = int(value)
    key = call.key
    asked = treatment(call.scope["headers"], key.privacy, 0)
    return Case(key.organisation, key.environment, asked, path, time.time_ns() // 1_000_000, refusal, size, body)


def route(path: str, gate: Gate, refused: Refused | None = None, **operations: Operation) -> BaseRoute:
    """Operations by method. What they refuse of an organisation is noted in `refused`."""
    return Route(path, Endpoint(path, operations, gate, refused))
