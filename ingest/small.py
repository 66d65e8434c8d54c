"""The small routes: what a page says of one flow or step, and what it may read back. Writes go through the log."""

import time
from typing import Any
from urllib.parse import parse_qs

import msgspec
import orjson

from backends.store.small import Done, SmallReads
from ingest.answers import Answer, invalid
from ingest.call import Call
from ingest.decode import UserHasher, epoch_ms, page_address
from ingest.durable import Durable
from ingest.flows import FlowCache, iso
from ingest.form import Form
from ingest.privacy import treatment
from ingest.problems import MESSAGES, Problem
from ingest.quick import lower
from ingest.reads import StoreReads
from ingest.submit import Submit
from schemas import records, small
from schemas.events import Event, EventsRequest, Text128, Text255
from schemas.ids import uuid7
from schemas.privacy import Privacy
from service import metrics

# A person's progress without the person is nothing: whoever asks for privacy keeps it in the page (our decision).
_OF_A_PERSON = Privacy(gpc="drop", dnt="drop")

_NO_STORE = [(b"cache-control", b"no-store")]

_completion = Form(small.Completion)
_progress = Form(small.ProgressReport, person=True)
_fingerprint = Form(small.FingerprintReport)
_health = Form(small.HealthReport)


class SmallRoutes:
    """A write names a flow or step of the key's organisation, published or not, so that a page that was opened before
    a flow was taken back still ends well; a read, a published one. All else is the same 404.
    """

    def __init__(
        self,
        flows: FlowCache,
        hasher: UserHasher,
        log: Durable,
        submit: Submit,
        store: SmallReads,
        reads: StoreReads,
    ) -> None:
        self._flows = flows
        self._hasher = hasher
        self._log = log
        self._submit = submit
        self._store = store
        self._reads = reads

    async def complete(self, call: Call) -> Answer:
        """POST /api/v1/flows/{id}/complete: an event like any other, for pages that send no events."""
        flow = call.path_id("id")
        await self._flows.with_flow(call.key.organisation, flow)
        body = await call.body()
        said = _completion.read(body.strip() or b"{}")
        request = EventsRequest(events=[Event(event_type="complete", flow_id=flow, **msgspec.structs.asdict(said))])
        lower(request)
        return await self._submit.take(call, request)

    async def report_progress(self, call: Call) -> Answer:
        """POST /api/v1/flows/{id}/checklist-progress."""
        flow = call.path_id("id")
        flows = await self._flows.with_flow(call.key.organisation, flow)
        said = _progress.read(await call.body())
        step = said.step_id.lower()
        if step not in flows.steps[flow]:
            raise invalid([Problem("stepId", "Not a step of this flow")])
        if treatment(call.scope["headers"], _OF_A_PERSON) is not None:
            return _accepted(0)
        user = said.user_id
        return await self._put(
            call,
            records.Progress(
                **_shared(call, said),
                flow=flow,
                step=step,
                user=self._hasher.hash(call.key.organisation, user) if user is not None else None,
                anon=said.anonymous_id,
                completed=said.completed,
            ),
        )

    async def fingerprint(self, call: Call) -> Answer:
        """POST /api/v1/steps/{id}/fingerprint."""
        step = call.path_id("id")
        flow = (await self._flows.with_step(call.key.organisation, step)).flow_of[step]
        said = _fingerprint.read(await call.body())
        shared = _shared(call, said) | {"flow": flow, "step": step, "url": page_address(said.url)}
        content = msgspec.Raw(msgspec.json.encode(said.fingerprint))
        return await self._put(call, records.Fingerprint(**shared, fingerprint=content))

    async def health(self, call: Call) -> Answer:
        """POST /api/v1/steps/{id}/health."""
        step = call.path_id("id")
        flow = (await self._flows.with_step(call.key.organisation, step)).flow_of[step]
        said = _health.read(await call.body())
        shared = _shared(call, said) | {"flow": flow, "step": step, "url": page_address(said.url)}
        return await self._put(call, records.Health(**shared, found=said.found))

    async def progress(self, call: Call) -> Answer:
        """GET /api/v1/flows/{id}/checklist-progress, of ?userId= or else ?anonymousId=, as of the last batch."""
        flow, organisation = call.path_id("id"), call.key.organisation
        flows = await self._flows.with_published(organisation, flow)
        user, anonymous = _person(call.scope["query_string"])
        person = small.person_digest(self._hasher.hash(organisation, user) if user is not None else None, anonymous)
        found = await self._reads.ask(self._store.progress, organisation, flow, person)
        items = [_item(step, found.get(step)) for step in flows.steps[flow]]
        completed = sum(item["completed"] for item in items)
        answer = {"flowId": flow, "completed": completed, "total": len(items), "items": items}
        return Answer(200, orjson.dumps(answer), _NO_STORE)

    async def status(self, call: Call) -> Answer:
        """GET /api/v1/snippet-status: whether a heartbeat was ever counted, the last one, and the hosts of pages."""
        found = await self._reads.ask(self._store.hosts, call.key.organisation)
        last = max(found.values(), default=None)
        hosts = [host for host in found if host]
        answer = {"installed": last is not None, "lastSeenAt": iso(last), "hosts": hosts}
        return Answer(200, orjson.dumps(answer), _NO_STORE)

    async def _put(self, call: Call, line: records.OfStep) -> Answer:
        await self._log.put(call.key.organisation, records.encode(line))
        metrics.small_accepted.labels(type(line).__name__.lower()).inc()
        return _accepted(1)


def _accepted(writes: int) -> Answer:
    return Answer(202, b'{"accepted":%d}' % writes)


def _shared(call: Call, said: small.ProgressReport | small.FingerprintReport | small.HealthReport) -> dict[str, Any]:
    """The fields that all small writes have."""
    now = time.time_ns() // 1_000_000
    return {
        "v": records.VERSION,
        "org": call.key.organisation,
        "received": now,
        "env": call.key.environment,
        "id": said.id.lower() if said.id is not None else uuid7(now),
        "time": epoch_ms(said.timestamp),
    }


def _item(step: str, done: Done | None) -> dict[str, Any]:
    if done is None:
        return {"stepId": step, "completed": False, "updatedAt": None}
    return {"stepId": step, "completed": done.completed, "updatedAt": iso(done.at)}


def _person(query: bytes) -> tuple[str | None, str | None]:
    """The user id and the anonymous id, one of them at least. Raises a 400 Refusal."""
    try:
        fields = parse_qs(query.decode("latin-1"), max_num_fields=100, errors="strict")
    except ValueError:
        raise invalid([Problem("", "Malformed query")]) from None
    given = {name: fields[name][0] for name in ("userId", "anonymousId") if name in fields}
    if not given:
        raise invalid([Problem("userId", "Expected a userId or an anonymousId")])
    bad = [Problem(name, MESSAGES[name]) for name, value in given.items() if not _good(name, value)]
    if bad:
        raise invalid(bad)
    return given.get("userId"), given.get("anonymousId")


def _good(name: str, value: str) -> bool:
    try:
        msgspec.convert(value, Text255 if name == "userId" else Text128)
    except msgspec.ValidationError:
        return False
    return True
