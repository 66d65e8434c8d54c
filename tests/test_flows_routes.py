"""GET /flows and GET /flows/{id}: what a page is given, what it need not fetch again, and what it never sees."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from backends.store.catalog import Flow, Step
from ingest.answers import Refusal
from ingest.flows import STALE_SECONDS, FlowCache, Flows, unchanged, written_out
from tests.stepping import NOT_FOUND, Stepping, make_flow, stepping
from tests.working import until

ORGANISATION = "0b0c1c1e-3c1c-4c58-9d43-0c6f8a1f9d11"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Stepping]:
    with stepping(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db", worker=False) as started:
        yield started


def shown(flow: Flow) -> dict[str, Any]:
    return {
        "flowId": flow.flow_id,
        "name": flow.name,
        "type": "checklist",
        "targeting": {"url": {"contains": "/team"}},
        "publishedAt": "2026-03-29T12:00:00.000Z",
        "steps": [
            {"stepId": s.step_id, "position": s.position, "name": s.name, "content": s.content} for s in flow.steps
        ],
    }


def test_a_page_is_given_the_published_flows_of_its_organisation(running: Stepping) -> None:
    draft = make_flow(running.flow.organisation, "A draft", published=False)
    second = make_flow(running.flow.organisation, "Invite")
    running.catalog.import_flow(draft, second)
    answer = running.get("/flows")
    assert answer.status_code == 200
    assert answer.json() == {"flows": [shown(second), shown(running.flow)]}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "private, max-age=60"
    assert {"authorization", "origin"} == {part.strip().lower() for part in answer.headers["vary"].split(",")}
    assert answer.headers["etag"][0] == answer.headers["etag"][-1] == '"'
    assert answer.headers["x-ratelimit-limit"] == "10000"
    assert running.get("/flows", key=1).json() == {"flows": [shown(running.foreign)]}
    assert running.get(f"/flows/{second.flow_id.upper()}").json() == shown(second)


def test_an_organisation_without_flows_has_an_empty_list(running: Stepping) -> None:
    running.catalog.publish_flow(running.flow.organisation, running.flow.flow_id, published=False)
    assert running.get("/flows").content == b'{"flows":[]}'


def test_what_a_page_may_not_see_is_the_same_404(running: Stepping) -> None:
    draft = make_flow(running.flow.organisation, "A draft", published=False)
    running.catalog.import_flow(draft)
    for flow in (draft.flow_id, running.foreign.flow_id, str(uuid.uuid4())):
        answer = running.get(f"/flows/{flow}")
        assert (answer.status_code, answer.content) == (404, NOT_FOUND)
        assert not {"etag", "cache-control"} & set(answer.headers)
    for bad in ("x", running.flow.flow_id.replace("-", ""), "%00"):
        answer = running.get(f"/flows/{bad}")
        assert answer.status_code == 400
        assert answer.json()["details"] == [{"path": "id", "message": "Expected a UUID"}]


@pytest.mark.parametrize("path", ["/flows", "/flows/{flow}"])
def test_what_a_page_has_already_is_not_sent_again(running: Stepping, path: str) -> None:
    path = path.format(flow=running.flow.flow_id)
    first = running.get(path)
    etag = first.headers["etag"]
    for given in (etag, f"W/{etag}", "*", f'"other", W/{etag}', f'"a,b",{etag} , "c"'):
        answer = running.get(path, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b""), given
        for name in ("etag", "cache-control", "vary"):
            assert answer.headers[name] == first.headers[name]
        assert "content-type" not in answer.headers
    for given in ('"other"', etag[1:-1], etag[:-1], '"*"', ""):
        assert running.get(path, headers={"If-None-Match": given}).content == first.content, given
    head = running.client.head(first.request.url.path, headers=first.request.headers)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)


def test_the_etag_is_of_the_content(running: Stepping) -> None:
    path = f"/flows/{running.flow.flow_id}"
    etags = [running.get(p).headers["etag"] for p in ("/flows", path)]
    assert len(set(etags)) == 2
    renamed = msgspec.structs.replace(running.flow, name="New name")
    before = written_out([running.flow])
    assert written_out([running.flow]).every.etag == before.every.etag == etags[0].encode()
    assert written_out([renamed]).every.etag != before.every.etag


def test_a_flow_published_a_moment_ago_is_found(running: Stepping) -> None:
    assert running.get("/flows").json()["flows"]
    late = make_flow(running.flow.organisation, "Late")
    running.catalog.import_flow(late)
    until(lambda: running.get(f"/flows/{late.flow_id}").status_code == 200, 8)


def test_content_that_is_odd_takes_no_other_flow_away() -> None:
    odd = Step(str(uuid.uuid4()), 0, "Odd", {"big": 2**70, "lone": "\ud800", "deep": {"é": [None, 1.5]}})
    found = written_out([Flow(ORGANISATION, "f", "Odd", "tour", [odd], 1), Flow(ORGANISATION, "g", "Good", "tour", [])])
    assert b'"big":1180591620717411303424' in found.body()
    assert "é" in found.body().decode()
    assert list(found.documents) == ["f"]


# The cache, as the routes use it


class Store:
    def __init__(self, *flows: Flow) -> None:
        self.flows = list(flows)
        self.asked = 0
        self.away = False

    async def find(self, organisations: list[str]) -> dict[str, Flows]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise sa.exc.OperationalError("SELECT", {}, Exception("away"))
        return {organisation: written_out(self.flows) for organisation in organisations}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_requests_share_a_look_up_and_ids_that_nobody_has_cost_one_a_second() -> None:
    async def run() -> None:
        flow = make_flow(ORGANISATION, "Tour")
        store, clock = Store(flow), Clock()
        cache = FlowCache(store.find, clock)
        await asyncio.gather(*(cache.of(ORGANISATION) for _ in range(50)))
        assert store.asked == 1
        for _ in range(5):
            clock.now += 1.01
            for _ in range(20):
                with pytest.raises(Refusal) as refusal:
                    await cache.with_step(ORGANISATION, str(uuid.uuid4()))
                assert refusal.value.status == 404
        assert store.asked == 6

    asyncio.run(run())


def test_flows_outlive_the_store_for_an_hour_but_an_unknown_id_cannot_be_told() -> None:
    async def run() -> None:
        flow = make_flow(ORGANISATION, "Tour")
        store, clock = Store(flow), Clock()
        cache = FlowCache(store.find, clock)
        await cache.of(ORGANISATION)
        store.away = True
        clock.now += STALE_SECONDS - 1
        assert (await cache.with_flow(ORGANISATION, flow.flow_id)).flow_of[flow.steps[0].step_id] == flow.flow_id
        with pytest.raises(Refusal) as refusal:
            await cache.with_flow(ORGANISATION, str(uuid.uuid4()))
        assert refusal.value.status == 503
        clock.now += 2
        with pytest.raises(Refusal) as refusal:
            await cache.of(ORGANISATION)
        assert refusal.value.status == 503
        store.away = False
        clock.now += 2
        assert (await cache.of(ORGANISATION)).documents

    asyncio.run(run())


def test_the_cache_is_bounded_by_what_its_entries_weigh(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        flow = make_flow(ORGANISATION, "Tour")
        monkeypatch.setattr("ingest.flows.CACHE_BYTES", 3 * written_out([flow]).weight())
        store, clock = Store(flow), Clock()
        cache = FlowCache(store.find, clock)
        for n in (0, 1, 2, 0, 3):
            await cache.of(str(n))
        assert store.asked == 4
        for n in (0, 2, 3):
            await cache.of(str(n))
        assert store.asked == 4
        await cache.of("1")
        assert store.asked == 5
        store.flows = [make_flow(ORGANISATION, f"Tour {n}") for n in range(9)]
        clock.now += 60
        assert await cache.of("0"), "what is heavier than all the room is answered, though not kept"
        await cache.of("0")
        assert store.asked == 7

    asyncio.run(run())


def test_several_headers_are_one_list() -> None:
    headers = [(b"if-none-match", b'"a"'), (b"host", b"e.org"), (b"if-none-match", b'W/"b"')]
    assert unchanged(headers, b'"a"')
    assert unchanged(headers, b'"b"')
    assert not unchanged(headers, b'"c"')
    assert not unchanged([], b'"a"')
