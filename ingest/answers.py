"""Answers: the one place where an outcome becomes a status, headers and bytes."""

from collections.abc import Iterable, Sequence

import msgspec
import orjson
from starlette.types import Send

from ingest import cors
from ingest.problems import Problem
from schemas.limits import Verdict
from service.cycle import Cycle, direct
from service.fields import Headers


class Refusal(Exception):
    """An answer that is not a 2xx. `reason` is one of a few words, for the metric.

    `given` is the body that was read, where it was refused before it was known what it says.
    """

    def __init__(
        self, status: int, error: str, reason: str, *, details: Sequence[Problem] = (), headers: Headers | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or []
        self.details = details
        self.given: bytes | None = None
        content: dict[str, object] = {"error": error}
        if details:
            content["details"] = [problem._asdict() for problem in details]
        self.body = orjson.dumps(content)


def unauthorized() -> Refusal:
    """The same for a missing, a malformed, an unknown and a revoked key (documented)."""
    return Refusal(401, "Unauthorized", "unauthorized")


def invalid(details: Sequence[Problem]) -> Refusal:
    return Refusal(400, "Validation failed", "invalid", details=details)


def request_timeout() -> Refusal:
    """The body did not come in time; what may still come of it cannot be told from a next request."""
    return Refusal(408, "Request timeout", "slow_body", headers=[(b"connection", b"close")])


def too_large() -> Refusal:
    return Refusal(413, "Payload too large", "too_large")


def unsupported_media_type() -> Refusal:
    return Refusal(415, "Unsupported media type", "media_type")


def unsupported_coding(known: Iterable[str]) -> Refusal:
    """The same answer, and what could have been sent (RFC 9110)."""
    listed = ", ".join(sorted(known)).encode()
    return Refusal(415, "Unsupported media type", "media_type", headers=[(b"accept-encoding", listed)])


def not_found() -> Refusal:
    return Refusal(404, "Not found", "not_found")


def method_not_allowed(allowed: Iterable[str]) -> Refusal:
    return Refusal(405, "Method not allowed", "method", headers=[(b"allow", ", ".join(sorted(allowed)).encode())])


def unavailable(reason: str, retry_after: int = 5) -> Refusal:
    """Nothing was taken; the client keeps its events and tries again."""
    return Refusal(503, "Service unavailable", reason, headers=[(b"retry-after", str(retry_after).encode())])


_JSON = (b"content-type", b"application/json")


class Answer(msgspec.Struct, frozen=True):
    """What a request comes to. `refusal` is why it was refused, if it was."""

    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()
    refusal: Refusal | None = None


async def send_answer(send: Send, answer: Answer, limits: Verdict | None, request: Headers) -> None:
    """Sends a whole response: JSON, or nothing where there is no body.

    `limits` say how a request stands that is within them, `request` are its headers.
    """
    cycle = direct(send)
    if cycle is not None:
        if cycle.full:
            await cycle.writable()
        answer_at_once(cycle, answer, limits, request)
        return
    told = limits.headers() if limits is not None else []
    described = [*_described(answer), *told, *cors.answer_headers(request)]
    await send({"type": "http.response.start", "status": answer.status, "headers": described})
    await send({"type": "http.response.body", "body": answer.body})


def answer_at_once(cycle: Cycle, answer: Answer, limits: Verdict | None, request: Headers) -> None:
    """The same without waiting where the connection is full; see Cycle.answer.

    What limits and cross-origin access add is written out beforehand where it can be, since it is most of the head.
    """
    written = cors.answer_lines(request)
    lines = (limits.lines(), written) if limits is not None else (written,)
    cycle.answer(answer.status, _described(answer), answer.body, lines)


def _described(answer: Answer) -> Sequence[tuple[bytes, bytes]]:
    body = answer.body
    return [_JSON, (b"content-length", b"%d" % len(body)), *answer.headers] if body else answer.headers
