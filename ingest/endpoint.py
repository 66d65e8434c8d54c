"""One path of the edge: its methods, the gate before them, and how every outcome becomes an answer. Raw ASGI."""

import time
from collections.abc import Awaitable, Callable

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from backends.store.keys import Key
from ingest import answers, cors
from ingest.answers import Answer
from ingest.body import ClientGone
from ingest.call import Call
from ingest.gate import Gate
from ingest.outcomes import Outcomes
from ingest.refused import Refused
from ingest.straight import Straight
from ingest.submit import Submit
from schemas.limits import Verdict
from service import metrics
from service.cycle import Cycle, direct

NOBODY = Key("")  # whose requests those are that need no key


class Operation(msgspec.Struct, frozen=True):
    """What a method does, and the bucket it counts in. Without one it is for everybody, and counts by address."""

    bucket: str | None
    handler: Callable[[Call], Awaitable[Answer]]


class Endpoint:
    """HEAD is GET without its body. OPTIONS asks nobody."""

    def __init__(self, path: str, operations: dict[str, Operation], gate: Gate, refused: Refused | None) -> None:
        self.operations = operations
        self._gate = gate
        self._allowed = [*operations, *(["HEAD"] if "GET" in operations else []), "OPTIONS"]
        self._outcomes = Outcomes(path, self._allowed, refused)
        self._submits = {
            method: (operation.bucket, operation.handler)
            for method, operation in operations.items()
            if operation.bucket is not None and isinstance(operation.handler, Submit)
        }

    def at_once(self, cycle: Cycle) -> bool:
        """Sends events on their way whose key and body are at hand. False where nothing was done."""
        scope = cycle.scope
        found = self._submits.get(scope["method"])
        if found is None or cycle.full:
            return False
        bucket, submit = found
        body = cycle.whole_body()
        key = self._gate.key_at_hand(scope) if body is not None else None
        if key is None:
            return False
        straight = Straight(cycle, Call(key, scope, cycle.receive, body), submit, self._outcomes)
        self._gate.count(key, bucket, straight.counted)
        cycle.hold(straight)
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        method = scope["method"]
        limits: Verdict | None = None
        call = None
        try:
            if method == "OPTIONS" and self.operations:
                answer = Answer(204, b"", cors.preflight_headers(self._allowed, scope["headers"]))
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
        except ClientGone:
            metrics.refusals.labels("client_gone").inc()
            return
        except Exception as error:
            answer = self._outcomes.failed(error)
        await answers.send_answer(send, answer, limits, scope["headers"])
        self._outcomes.ended(method, call, answer, started)


def route(path: str, gate: Gate, refused: Refused | None = None, **operations: Operation) -> BaseRoute:
    """Operations by method. What they refuse of an organisation is noted in `refused`."""
    return Route(path, Endpoint(path, operations, gate, refused))
