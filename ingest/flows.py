"""The flows of an organisation, as its pages ask for them: written out once, kept in memory, told apart by ETags."""

import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from backends.store.catalog import Flow
from ingest.answers import Answer, not_found
from ingest.cache import ReadThrough
from ingest.call import Call
from service import metrics
from service.fields import Headers

CACHE_BYTES = 64 * 1024 * 1024
FRESH_SECONDS = 10.0
RETRY_SECONDS = 1.0
STALE_SECONDS = 3600.0
# A page asks once a minute at most, and a published flow is everywhere a little over a minute later. Private, since
# what it is depends on the key; and told apart by it, since two keys may share a browser.
_CACHING = [(b"cache-control", b"private, max-age=60"), (b"vary", b"Authorization")]
_ETAGS = re.compile(rb'"[^"]*"')


class Document(NamedTuple):
    """JSON, and the strong ETag of its content."""

    body: bytes
    etag: bytes


class Flows(NamedTuple):
    """All flows of one organisation. The published ones have a document, which is what a page may see."""

    documents: dict[str, Document]  # by flow id, in the order of names
    every: Document  # {"flows": [...]}, without its body, which is made of the others' bodies
    steps: dict[str, list[str]]  # ids by flow, in order
    flow_of: dict[str, str]  # by step

    def body(self) -> bytes:
        return b'{"flows":[' + b",".join(document.body for document in self.documents.values()) + b"]}"

    def weight(self) -> int:
        """Roughly its bytes in memory."""
        return 1000 + sum(len(document.body) for document in self.documents.values()) + 500 * len(self.flow_of)


def written_out(flows: Iterable[Flow]) -> Flows:
    """Of one organisation's flows, published or not."""
    known = list(flows)
    documents = {flow.flow_id: _document(_content(flow)) for flow in known if flow.published_at is not None}
    steps = {flow.flow_id: [step.step_id for step in flow.steps] for flow in known}
    found = Flows(documents, Document(b"", b""), steps, {step: flow for flow, ids in steps.items() for step in ids})
    return found._replace(every=Document(b"", _document(found.body()).etag))


def _document(body: bytes) -> Document:
    return Document(body, b'"%b"' % hashlib.blake2b(body, digest_size=16).hexdigest().encode())


def _content(flow: Flow) -> bytes:
    content = {
        "flowId": flow.flow_id,
        "name": flow.name,
        "type": flow.type,
        "targeting": flow.targeting,
        "publishedAt": iso(flow.published_at),
        "steps": [
            {"stepId": step.step_id, "position": step.position, "name": step.name, "content": step.content}
            for step in flow.steps
        ],
    }
    # Not orjson, which refuses integers beyond 64 bits: one odd flow must not take the others away.
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def iso(epoch_ms: int | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    if epoch_ms is None:
        return None
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class FlowCache(ReadThrough[Flows]):
    """By organisation. What is asked for and is not there is looked up again, though not more than once a second, so
    that a flow published a moment ago is found and a flood of unknown ids costs next to nothing.
    """

    def __init__(
        self,
        lookup: Callable[[list[str]], Awaitable[Mapping[str, Flows]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            lookup,
            metrics.flow_lookups,
            size=CACHE_BYTES,
            fresh=FRESH_SECONDS,
            stale=STALE_SECONDS,
            weight=Flows.weight,
            clock=clock,
        )

    async def of(self, organisation: str) -> Flows:
        """Raises a 503 Refusal where the store is away and was for an hour."""
        return await self.get(organisation) or written_out([])

    async def with_flow(self, organisation: str, flow: str) -> Flows:
        """The organisation's, which has this flow. Raises a 404 Refusal, and a 503 where that cannot be told."""
        return await self._having(organisation, lambda flows: flow in flows.steps)

    async def with_step(self, organisation: str, step: str) -> Flows:
        """The same for a step of any flow."""
        return await self._having(organisation, lambda flows: step in flows.flow_of)

    async def with_published(self, organisation: str, flow: str) -> Flows:
        """The same for a published flow."""
        return await self._having(organisation, lambda flows: flow in flows.documents)

    async def _having(self, organisation: str, there: Callable[[Flows], bool]) -> Flows:
        flows = await self.of(organisation)
        if not there(flows):
            flows = await self.get(organisation, fresh=RETRY_SECONDS, stale=RETRY_SECONDS) or flows
            if not there(flows):
                raise not_found()
        return flows


class FlowRoutes:
    """GET /api/v1/flows and GET /api/v1/flows/{id}."""

    def __init__(self, flows: FlowCache) -> None:
        self._flows = flows

    async def all(self, call: Call) -> Answer:
        """The published ones, by name."""
        flows = await self._flows.of(call.key.organisation)
        return _conditional(call, flows.every.etag, flows.body)

    async def one(self, call: Call) -> Answer:
        """A published one. One that is not, another organisation's and none at all are the same 404."""
        flow = call.path_id("id")
        flows = await self._flows.with_published(call.key.organisation, flow)
        document = flows.documents[flow]
        return _conditional(call, document.etag, lambda: document.body)


def _conditional(call: Call, etag: bytes, body: Callable[[], bytes]) -> Answer:
    headers = [(b"etag", etag), *_CACHING]
    if unchanged(call.scope["headers"], etag):
        return Answer(304, b"", headers)
    return Answer(200, body(), headers)


def unchanged(headers: Headers, etag: bytes) -> bool:
    """Whether If-None-Match names this ETag, in its weak form too, or anything by `*` (RFC 9110, 13.1.2)."""
    given = b",".join(value for name, value in headers if name == b"if-none-match")
    if given.strip() == b"*":
        return True
    return etag in _ETAGS.findall(given)  # `W/` stands before the quotes
