"""What the edge refuses of an organisation: noted in the topic of the refused, and set aside by the worker."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import msgspec
import orjson
import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from backends.log import open_admin
from backends.store.counting import Counting
from backends.store.engine import open_engine
from ingest.answers import too_large
from ingest.body import MAX_BODY_BYTES
from ingest.decode import UserHasher
from ingest.enqueue import Enqueuer
from ingest.refused import MAX_KEPT_BYTES, MAX_WAITING, Case
from ingest.refused import Refused as Refusals
from schemas import records, tables
from schemas.privacy import Privacy
from schemas.records import Refused
from tests.edges import (
    EVENTS,
    FLOW,
    HEARTBEAT,
    SECRET,
    Running,
    World,
    accepted,
    bearer,
    edge,
    make_world,
    read_envelopes,
    read_records,
    read_refused,
    view,
)
from tests.working import until, working
from tests.worlds import Partitions, apply, make_flows

USER = "planted-user@example.com"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    with edge(world) as client:
        yield Running(world, client)


def noted(world: World, count: int) -> list[Refused]:
    """As soon as there are so many."""
    until(lambda: len(read_refused(world)) >= count)
    found = read_refused(world)
    assert len(found) == count
    return found


def body(refused: Refused) -> Any:
    assert refused.body is not msgspec.UNSET
    return orjson.loads(bytes(refused.body))


def has_body(refused: Refused) -> bool:
    return refused.body is not msgspec.UNSET


def test_a_bad_body_is_noted_with_its_reason_and_without_what_may_not_be_kept(running: Running) -> None:
    bad = view(
        eventType="click",
        userId=USER,
        anonymousId="a-1",
        url="https://user.example.org/page?token=planted#planted",
        name="from https://x.example.org/?token=planted",
        timestamp=1_700_000_000_000,
        data={"secret": "planted"},
        password="planted",
    )
    content = orjson.dumps({"events": [bad], "sentAt": "2024-01-01T00:00:00Z", "apiKey": "planted"})
    assert running.post(content, headers={"Referer": "https://x.example.org/?planted"}).status_code == 400
    [refused] = noted(running.world, 1)
    assert (refused.org, refused.env) == (running.world.organisations[0], "production")
    assert (refused.route, refused.reason, refused.size) == (EVENTS, "invalid", len(content))
    assert [(d.path, d.message) for d in refused.details] == [("events[0].eventType", "Invalid enum value")]
    assert refused.sha256 == hashlib.sha256(content).hexdigest()
    assert body(refused) == {
        "sentAt": "2024-01-01T00:00:00Z",
        "events": [
            {
                "eventType": "click",
                "flowId": FLOW,
                "sessionId": "s-1",
                "userId": UserHasher(SECRET).hash(refused.org, USER),
                "anonymousId": "a-1",
                "name": "from https://x.example.org/",
                "timestamp": 1_700_000_000_000,
                "url": "https://user.example.org/page",
            }
        ],
    }
    [record] = read_records(running.world, running.world.topics.refused)
    assert b"planted" not in record.value and USER.encode() not in record.value


@pytest.mark.parametrize(
    "content",
    [b"", b"planted", b'{"events":[{"userId":"planted"', b"[" * 100_000 + b'"planted"', b'{"events":[]}\xff planted'],
    ids=["empty", "text", "broken", "deep", "not UTF-8"],
)
def test_of_a_body_that_cannot_be_parsed_its_length_and_digest_are_noted(running: Running, content: bytes) -> None:
    assert running.post(content).status_code == 400
    [refused] = noted(running.world, 1)
    assert not has_body(refused)
    assert (refused.size, refused.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert b"planted" not in read_records(running.world, running.world.topics.refused)[0].value


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"Content-Encoding": "gzip"}, b"planted, and no gzip"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"data=%7B%7D&data=planted"),
    ],
    ids=["compressed", "form"],
)
def test_of_a_body_that_does_not_come_out_of_its_wrapping_too(
    running: Running, headers: dict[str, str], content: bytes
) -> None:
    assert running.post(content, headers=headers).status_code == 400
    [refused] = noted(running.world, 1)
    assert not has_body(refused)
    assert (refused.size, refused.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("content", [b"1", b"null", b'"planted"', b"[1]", b'{"events":{"userId":"planted"}}'])
def test_of_json_of_another_shape_nothing_is_kept_that_is_no_known_field(running: Running, content: bytes) -> None:
    assert running.post(content).status_code == 400
    assert noted(running.world, 1)
    assert b"planted" not in read_records(running.world, running.world.topics.refused)[0].value


def test_a_field_of_another_kind_is_left_out(running: Running) -> None:
    event = {"eventType": ["planted"], "userId": {"email": "planted"}, "url": ["planted"], "flowId": 7, "stepId": True}
    assert running.post({"events": [event]}).status_code == 400
    [refused] = noted(running.world, 1)
    assert body(refused) == {"events": [{"flowId": 7, "stepId": True}]}


def test_what_is_kept_of_a_body_is_bounded(running: Running) -> None:
    events = [view(sessionId="s" * 128, name="n" * 5000, url="https://u" * 1000) for _ in range(30)]
    assert running.post({"events": events}).status_code == 400
    [refused] = noted(running.world, 1)
    assert len(bytes(refused.body)) <= MAX_KEPT_BYTES  # type: ignore[arg-type]
    assert 1 <= len(body(refused)["events"]) <= 50
    assert len(body(refused)["events"][0]["name"]) == 255


def test_too_many_events_are_noted_up_to_what_there_is_room_for(running: Running) -> None:
    assert running.post({"events": [view(name="é" * 255)] * 400}).status_code == 400
    [refused] = noted(running.world, 1)
    assert 10 < len(body(refused)["events"]) <= 50
    assert len(bytes(refused.body)) <= MAX_KEPT_BYTES  # type: ignore[arg-type]


def test_a_body_too_large_or_of_another_type_is_noted_without_it(running: Running) -> None:
    large = b" " * (MAX_BODY_BYTES + 1)
    assert running.post(large).status_code == 413
    assert running.post(b"<planted/>", headers={"Content-Type": "application/xml"}).status_code == 415
    found = sorted(noted(running.world, 2), key=lambda refused: refused.reason)
    assert [(r.reason, r.size, r.sha256, has_body(r)) for r in found] == [
        ("media_type", len(b"<planted/>"), None, False),
        ("too_large", len(large), None, False),
    ]


def test_who_asks_for_privacy_gets_it_here_too(running: Running) -> None:
    world, catalog = running.world, running.world.catalog()
    catalog.set_privacy(world.organisations[1], Privacy(gpc="drop", dnt="anonymous"))
    bad = {"events": [view(eventType="click", userId=USER, anonymousId="planted", sessionId="kept")]}
    assert running.post(bad, 1, {"Sec-GPC": "1"}).status_code == 400
    [dropped] = noted(world, 1)
    assert not has_body(dropped) and dropped.reason == "invalid"
    assert running.post(bad, 1, {"DNT": "1"}).status_code == 400
    [*_, anonymous] = sorted(noted(world, 2), key=has_body)
    assert body(anonymous) == {"events": [{"eventType": "click", "flowId": FLOW, "sessionId": "kept"}]}


def test_what_is_nobodys_or_no_fault_of_the_body_is_not_noted(running: Running) -> None:
    world = running.world
    content = orjson.dumps({"events": [view(eventType="click")]})
    assert running.client.post(EVENTS, content=content).status_code == 401
    assert running.client.post(EVENTS, content=content, headers=bearer("x" * 32)).status_code == 401
    assert running.client.put(EVENTS, content=content, headers=bearer(world.keys[0])).status_code == 405
    assert running.client.post("/api/v1/nothing", content=content, headers=bearer(world.keys[0])).status_code == 404
    for _ in range(11):
        last = running.client.get(HEARTBEAT, headers=bearer(world.keys[0]))
    assert last.status_code == 429
    accepted(running.post({"events": [view()]}), 1)
    assert running.post(content).status_code == 400  # the only one
    [refused] = noted(world, 1)
    assert refused.reason == "invalid"


def lost(reason: str) -> float:
    return REGISTRY.get_sample_value("zenstep_refused_lost_total", {"reason": reason}) or 0


def test_a_refusal_is_answered_though_its_topic_is_not_there(tmp_path: Path) -> None:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db", topics=False)

    with closing(open_admin(world.settings.log_url)) as admin:
        for topic in (world.topics.events, world.topics.heartbeats):
            admin.create_topic(topic, 4, 1)
    before = lost("log_away")
    with edge(world, connected=False) as client:
        running = Running(world, client)
        until(lambda: running.post({"events": [view()]}).status_code == 202)
        assert running.post({"events": []}).status_code == 400
        until(lambda: lost("log_away") == before + 1)
        accepted(running.post({"events": [view()]}), 1)


def test_no_more_than_a_few_wait_for_a_log_that_does_not_answer() -> None:
    class Silent:
        """A log that never answers."""

        async def put(self, organisation: str, line: bytes) -> None:
            await asyncio.Event().wait()

    async def flood() -> float:
        refused = Refusals(cast(Enqueuer, Silent()), UserHasher(SECRET))
        before = lost("full")
        case = Case(FLOW, None, None, EVENTS, 1_700_000_000_000, too_large(), None, None)
        for _ in range(MAX_WAITING + 10):
            refused.note(case)
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return lost("full") - before

    assert asyncio.run(flood()) == 10


def test_the_worker_sets_it_aside_with_its_reason_and_the_accounts_add_up(store_url: str) -> None:
    engine = open_engine(store_url)
    organisation, _ = make_flows(engine, [1])
    received = 1_700_000_000_000
    refused = Refused(v=records.VERSION, org=organisation, received=received, route=EVENTS, reason="invalid", size=3)
    partitions = Partitions()
    record = partitions.record(*[records.encode(refused)] * 2)
    apply(engine, record)
    apply(engine, record)  # a replay of what is counted already
    with engine.connect() as connection:
        rows = connection.execute(sa.select(tables.rejected).order_by(tables.rejected.c.line)).mappings().all()
    assert [(r["organisation_id"], r["topic"], r["line"], r["event"], r["reason"]) for r in rows] == [
        (organisation, partitions.topic, line, -1, "refused:invalid") for line in (0, 1)
    ]
    assert [(r["received_at"], r["body"]) for r in rows] == [(received, records.encode(refused))] * 2
    assert Counting(engine).ledger() == {"consumed": 2, "rejected:refused:invalid": 2}
    engine.dispose()


def test_from_the_refusal_to_the_table(running: Running) -> None:
    world = running.world
    assert running.post({"events": []}).status_code == 400
    accepted(running.post({"events": [view()]}), 1)
    engine = open_engine(world.settings.store_url)
    with working(engine, world.settings.log_url, world.topics.all(), "workers"):
        until(lambda: Counting(engine).ledger().get("consumed", 0) == 2)
    ledger = Counting(engine).ledger()
    assert ledger == {"consumed": 2, "rejected:refused:invalid": 1, "rejected:unknown_flow": 1}
    assert Counting(engine).ledger(topic=world.topics.events) == {"consumed": 1, "rejected:unknown_flow": 1}
    assert len(read_envelopes(world)) == 1
    engine.dispose()
