"""How a path's requests end: as which answer, counted, and noted where an operator may want to know."""

import logging
import time
from collections.abc import Collection

from ingest.answers import Answer, Refusal
from ingest.call import Call
from ingest.privacy import treatment
from ingest.refused import STATUSES, Case, Refused
from service import metrics
from service.counts import Count

log = logging.getLogger(__name__)


class Outcomes:
    """Of one path and its methods. What is refused of an organisation is noted in `refused`."""

    def __init__(self, path: str, methods: Collection[str], refused: Refused | None) -> None:
        self._path = path
        self._methods = methods
        self._refused = refused
        self._seconds = metrics.http_seconds.labels(path)
        self._answered: dict[tuple[str, int], Count] = {}  # by method and status: as few as of either

    def failed(self, error: Exception) -> Answer:
        """The answer of a Refusal; anything else is a fault of ours."""
        if isinstance(error, Refusal):
            # Its frames hold the body and what was made of it: much memory, until the collector comes by.
            refusal = error.with_traceback(None)
            refusal.__context__ = None
            metrics.refusals.labels(refusal.reason).inc()
            return Answer(refusal.status, refusal.body, refusal.headers, refusal)
        log.error("request failed", exc_info=error, extra={"route": self._path})
        metrics.refusals.labels("fault").inc()
        return Answer(500, b'{"error":"Internal server error"}')

    def ended(self, method: str, call: Call | None, answer: Answer, started: float) -> None:
        """When it is on its way to the client. `started` as of time.perf_counter; without a `call` it is nobody's."""
        refusal, status = answer.refusal, answer.status
        if refusal is not None and call is not None and self._refused is not None and status in STATUSES:
            self._refused.note(_case(call, self._path, refusal))
        self._count(method if method in self._methods else "other", status)
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
