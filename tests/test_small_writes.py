"""The small writes over real HTTP, through the log and a worker into the store, and read back."""

import itertools
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from backends.store.catalog import Catalog, CatalogError, Flow
from backends.store.engine import open_engine
from ingest.decode import UserHasher
from schemas import records
from schemas import tables as t
from schemas.records import Health, Progress
from schemas.small import MAX_FINGERPRINT_BYTES, MAX_SMALL_BYTES, person_digest
from tests.edges import SECRET, read_lines, read_records
from tests.stepping import NOT_FOUND, Stepping, make_flow, stepping
from tests.worlds import NOW, Partitions, analytics, apply, chosen_range, make_flows, new_id

DAY = 86_400_000
ADA = "ada+planted@example.org"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Stepping]:
    with stepping(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db") as started:
        yield started


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


def progress_path(running: Stepping) -> str:
    return f"/flows/{running.flow.flow_id}/checklist-progress"


def done(running: Stepping, **who: str) -> list[bool]:
    return [item["completed"] for item in running.get(f"{progress_path(running)}?{urlencode(who)}").json()["items"]]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def whole_way(running: Stepping) -> None:
    """Each route once, told to the log and the store as it should be."""
    flow, [one, two, _] = running.flow.flow_id, running.steps
    at = now_ms() - 60_000
    running.taken(progress_path(running), {"userId": ADA, "stepId": one.upper(), "timestamp": at})
    running.taken(progress_path(running), {"userId": ADA, "stepId": two, "completed": False})
    running.taken(progress_path(running), {"anonymousId": "a-1", "stepId": two})
    url = "https://app.example.org/team?token=planted#planted"
    shape = {"selector": "#invite", "text": "é", "path": [1, 2]}
    running.taken(f"/steps/{one}/fingerprint", {"fingerprint": shape, "url": url, "timestamp": at})
    running.taken(f"/steps/{one}/health", {"found": True, "url": url})
    running.taken(f"/steps/{one}/health", {"found": False})
    running.taken(f"/flows/{flow}/complete", b"")
    running.counted(7)
    assert running.ledger() == {"consumed": 7, "counted": 7}
    answer = running.get(progress_path(running), userId=ADA)
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert (body["flowId"], body["completed"], body["total"]) == (flow, 1, 3)
    assert [item["stepId"] for item in body["items"]] == running.steps
    assert [item["completed"] for item in body["items"]] == [True, False, False]
    assert body["items"][0]["updatedAt"].endswith("Z")
    assert body["items"][1]["updatedAt"] > body["items"][0]["updatedAt"]
    assert body["items"][2] == {"stepId": running.steps[2], "completed": False, "updatedAt": None}
    assert done(running, anonymousId="a-1") == [False, True, False]
    assert done(running, anonymousId=ADA) == [False, False, False]
    [fingerprint] = running.rows(t.step_fingerprints)
    assert (fingerprint["step_id"], fingerprint["flow_id"], fingerprint["at"]) == (one, flow, at)
    assert fingerprint["url"] == "https://app.example.org/team"
    assert fingerprint["fingerprint"] == b'{"selector":"#invite","text":"\xc3\xa9","path":[1,2]}'
    [health] = running.rows(t.step_health)
    assert (health["step_id"], health["found"], health["url"]) == (one, False, None)
    assert sum(row["found"] for row in running.rows(t.step_health_days)) == 1
    assert sum(row["missing"] for row in running.rows(t.step_health_days)) == 1


def test_every_write_comes_through_the_worker(running: Stepping) -> None:
    whole_way(running)
    topics = running.world.topics
    for record in read_records(running.world, topics.heartbeats) + read_records(running.world, topics.events):
        assert b"planted" not in record.value
        assert b"ada+" not in record.value  # a random id may have the letters alone
    lines = read_lines(running.world, topics.heartbeats)
    hashes = {line.user for line in lines if isinstance(line, Progress)}
    assert hashes == {UserHasher(SECRET).hash(running.flow.organisation, ADA), None}


def test_every_write_comes_through_kafka_into_postgresql(kafka_servers: str, postgres_url: str) -> None:
    with stepping(f"kafka://{kafka_servers}", postgres_url) as running:
        whole_way(running)


def test_a_completion_is_counted_as_the_event_it_is(running: Stepping) -> None:
    flow, path = running.flow.flow_id, f"/flows/{running.flow.flow_id}/complete"
    now = now_ms()
    view = {"eventType": "view", "flowId": flow, "sessionId": "s-1", "userId": ADA, "timestamp": now - 30_000}
    running.taken("/events", {"events": [view]})
    identifier = str(uuid.uuid4())
    body = {"id": identifier, "userId": ADA, "sessionId": "s-1", "timestamp": now - 10_000, "data": {"from": "list"}}
    for _ in range(2):
        running.taken(path, body)
    running.taken("/events", {"events": [{**body, "eventType": "complete", "flowId": flow}]})
    running.counted(4)
    assert running.ledger() == {"consumed": 4, "counted": 2, "duplicate": 2}
    start = (now - 30_000) // DAY * DAY
    totals = analytics(running.engine, running.flow, chosen_range(start, start + 2 * DAY))["totals"]
    assert (totals["starts"], totals["completions"], totals["completionRate"]) == (1, 1, 1.0)
    assert (totals["medianSecondsToComplete"], totals["uniqueUsers"]) == (20.0, 1)
    written = read_lines(running.world, running.world.topics.events)
    [event] = {line.events[0].id: line.events[0] for line in written if line.events[0].type == "complete"}.values()  # type: ignore[union-attr]
    assert (event.flow, event.step, bytes(event.data)) == (flow, None, b'{"from":"list"}')  # type: ignore[arg-type]


def test_a_retry_of_a_small_write_is_a_duplicate(running: Stepping) -> None:
    identifier = str(uuid.uuid4())
    for _ in range(3):
        running.taken(f"/steps/{running.steps[0]}/health", {"id": identifier.upper(), "found": False})
    running.counted(3)
    assert running.ledger() == {"consumed": 3, "counted": 1, "duplicate": 2}
    [day] = running.rows(t.step_health_days)
    assert (day["found"], day["missing"]) == (0, 1)


WRITES: list[tuple[str, Any]] = [
    ("/flows/{flow}/complete", {}),
    ("/flows/{flow}/checklist-progress", {"userId": "u", "stepId": "{step}"}),
    ("/steps/{step}/fingerprint", {"fingerprint": {}}),
    ("/steps/{step}/health", {"found": True}),
]


@pytest.mark.parametrize(("path", "body"), WRITES, ids=[path for path, _ in WRITES])
def test_what_belongs_to_another_organisation_is_as_if_it_did_not_exist(
    running: Stepping, path: str, body: dict[str, Any]
) -> None:
    foreign, step = running.foreign.flow_id, running.foreign.steps[0].step_id
    unknown = str(uuid.uuid4())
    for flow, of in ((foreign, step), (unknown, unknown)):
        answer = running.post(path.format(flow=flow, step=of), body)
        assert (answer.status_code, answer.content) == (404, NOT_FOUND)
    bad = running.post(path.format(flow="x", step="x"), body)
    assert (bad.status_code, bad.json()["details"]) == (400, [{"path": "id", "message": "Expected a UUID"}])
    given = {k: v.format(step=step) if isinstance(v, str) else v for k, v in body.items()}
    running.taken(path.format(flow=foreign, step=step), given, key=1)  # its own organisation may


def test_progress_is_read_of_published_flows_of_ones_own_alone(running: Stepping) -> None:
    draft = make_flow(running.flow.organisation, "A draft", published=False)
    running.catalog.import_flow(draft)
    for flow in (draft.flow_id, running.foreign.flow_id, str(uuid.uuid4())):
        answer = running.get(f"/flows/{flow}/checklist-progress", userId="u")
        assert (answer.status_code, answer.content) == (404, NOT_FOUND)


def test_a_page_that_was_open_when_its_flow_was_taken_back_still_ends_well(running: Stepping) -> None:
    running.catalog.publish_flow(running.flow.organisation, running.flow.flow_id, published=False)
    running.taken(f"/flows/{running.flow.flow_id}/complete", {"sessionId": "s"})
    running.counted(1)
    assert running.ledger() == {"consumed": 1, "counted": 1}


DEEP = b"[" * 70 + b"]" * 70
BAD: list[tuple[str, bytes | dict[str, Any], list[tuple[str, str]]]] = [
    ("complete", {"userId": 7, "sessionId": ""}, [
        ("userId", "Expected a string of 1 to 255 characters"),
        ("sessionId", "Expected a string of 1 to 128 characters"),
    ]),
    ("complete", b"[]", [("", "Expected an object")]),
    ("complete", b"{", [("", "Malformed JSON")]),
    ("complete", b'{"data":%b}' % DEEP, [("data", "Nested deeper than 64 levels")]),
    ("complete", {"data": "x" * MAX_SMALL_BYTES}, [
        ("", f"Larger than {MAX_SMALL_BYTES} bytes"), ("data", f"Larger than {MAX_SMALL_BYTES} bytes"),
    ]),
    ("progress", {}, [("stepId", "Required"), ("userId", "Expected a userId or an anonymousId")]),
    ("progress", b"", [("", "Malformed JSON")]),
    ("progress", {"stepId": "x", "completed": 1, "userId": None, "timestamp": "noon"}, [
        ("stepId", "Expected a UUID"),
        ("completed", "Expected true or false"),
        ("timestamp", "Expected an ISO 8601 time with offset or epoch milliseconds"),
        ("userId", "Expected a userId or an anonymousId"),
    ]),
    ("progress", {"stepId": str(uuid.uuid4()), "userId": "u"}, [("stepId", "Not a step of this flow")]),
    ("fingerprint", {"url": "x" * 2049}, [
        ("fingerprint", "Required"), ("url", "Expected a string of at most 2048 characters"),
    ]),
    ("fingerprint", {"fingerprint": [1]}, [("fingerprint", "Expected an object")]),
    ("fingerprint", {"fingerprint": {"x": "y" * MAX_FINGERPRINT_BYTES}}, [
        ("fingerprint", f"Larger than {MAX_FINGERPRINT_BYTES} bytes"),
    ]),
    ("fingerprint", b'{"fingerprint":{"x":%b}}' % DEEP, [("fingerprint", "Nested deeper than 64 levels")]),
    ("health", {"found": "yes", "id": "7"}, [("found", "Expected true or false"), ("id", "Expected a UUID")]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "problems"), BAD)
def test_every_bad_field_is_listed_and_nothing_is_taken(
    running: Stepping, kind: str, body: bytes | dict[str, Any], problems: list[tuple[str, str]]
) -> None:
    flow, step = running.flow.flow_id, running.steps[0]
    paths = {"complete": f"/flows/{flow}/complete", "progress": f"/flows/{flow}/checklist-progress"}
    answer = running.post(paths.get(kind, f"/steps/{step}/{kind}"), body)
    assert answer.status_code == 400
    assert answer.json()["error"] == "Validation failed"
    assert sorted((d["path"], d["message"]) for d in answer.json()["details"]) == sorted(problems)
    for topic in (running.world.topics.events, running.world.topics.heartbeats):
        assert read_records(running.world, topic) == []


def test_a_question_for_progress_needs_a_person(running: Stepping) -> None:
    long = "Expected a string of 1 to 255 characters"
    questions: list[tuple[dict[str, str], list[tuple[str, str]]]] = [
        ({}, [("userId", "Expected a userId or an anonymousId")]),
        ({"userId": ""}, [("userId", "Expected a userId or an anonymousId")]),
        ({"userId": "x" * 256}, [("userId", long)]),
        ({"userId": "a\0b", "anonymousId": "x" * 129}, [
            ("userId", long), ("anonymousId", "Expected a string of 1 to 128 characters"),
        ]),
    ]  # fmt: skip
    for query, problems in questions:
        answer = running.get(f"{progress_path(running)}?{urlencode(query)}")
        assert answer.status_code == 400
        assert [(d["path"], d["message"]) for d in answer.json()["details"]] == problems
    path = f"/api/v1{progress_path(running)}?userId=%ff&key={running.world.keys[0]}"
    assert running.client.get(path).status_code == 400


@pytest.mark.parametrize("signal", ["Sec-GPC", "DNT"])
def test_progress_of_whom_asks_for_privacy_is_not_taken(running: Stepping, signal: str) -> None:
    body = {"userId": ADA, "stepId": running.steps[0]}
    answer = running.post(progress_path(running), body, headers={signal: "1"})
    assert (answer.status_code, answer.content) == (202, b'{"accepted":0}')
    assert read_records(running.world, running.world.topics.heartbeats) == []


def test_no_user_id_is_logged(running: Stepping, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="ingest")
    running.taken(progress_path(running), {"userId": ADA, "stepId": running.steps[0]})
    running.get(progress_path(running), userId=ADA)
    running.post(progress_path(running), {"userId": ADA})
    assert ADA not in caplog.text


# The worker alone, on either store


def small(kind: type[Any], flow: Flow, step: int = 0, **fields: Any) -> Any:
    shared = {"v": 1, "org": flow.organisation, "received": NOW, "id": new_id()}
    return kind(**shared | {"flow": flow.flow_id, "step": flow.steps[step].step_id} | fields)


def stored(engine: sa.Engine, table: sa.Table) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


def test_the_latest_by_the_clients_clock_wins_whatever_the_order_and_the_batches(engine: sa.Engine) -> None:
    reports = [(NOW - 3000, True), (NOW - 2000, False), (NOW - 1000, True), (NOW - 1000, False)]
    ids = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(len(reports))]
    for number, order in enumerate(itertools.permutations(range(len(reports)))):
        _, [flow] = make_flows(engine, [1])
        log = Partitions()
        lines = [
            small(Progress, flow, user="1" * 64, id=ids[n], time=reports[n][0], completed=reports[n][1]) for n in order
        ]
        cut = number % len(lines)
        for batch in (lines[:cut], lines[cut:]):
            if batch:
                apply(engine, log.record(*batch))
        [row] = [row for row in stored(engine, t.checklist_progress) if row["flow_id"] == flow.flow_id]
        assert (row["completed"], row["at"], row["report_id"]) == (False, NOW - 1000, ids[3]), order
        assert row["person"] == person_digest("1" * 64, None)


def test_health_is_counted_by_the_day_it_was_seen(engine: sa.Engine) -> None:
    _, [flow] = make_flows(engine, [2])
    log = Partitions()
    times = [(NOW, True), (NOW - DAY, False), (NOW - DAY, True), (NOW + 9 * DAY, True), (NOW - 8 * DAY, True)]
    apply(engine, log.record(*(small(Health, flow, found=found, time=at) for at, found in times)))
    days = {row["day"]: (row["found"], row["missing"]) for row in stored(engine, t.step_health_days)}
    assert days == {NOW // DAY: (2, 0), NOW // DAY - 1: (1, 1)}  # a future one at its receipt, an old one not at all
    assert [row["reason"] for row in stored(engine, t.rejected)] == ["too_old"]


def test_a_worker_checks_again_whose_step_it_is(engine: sa.Engine) -> None:
    _, [flow] = make_flows(engine, [1])
    _, [foreign] = make_flows(engine, [1])
    strange = small(Progress, flow, anon="a", step=0)
    strange.step = foreign.steps[0].step_id
    other = small(Health, foreign, found=True)
    other.org = flow.organisation
    apply(engine, Partitions().record(strange, other, small(Progress, flow)))
    assert sorted(row["reason"] for row in stored(engine, t.rejected)) == ["invalid", "unknown_flow", "unknown_step"]
    assert stored(engine, t.checklist_progress) == stored(engine, t.step_health) == []


def test_records_of_the_first_release_are_read() -> None:
    beat = b'{"kind":"heartbeat","v":1,"org":"%b","received":1774785600000,"id":"00000000-0000-4000-8000-00000000000f"}'
    line = records.decode(beat % b"a0000000-0000-4000-8000-000000000001")
    assert isinstance(line, records.Heartbeat)


def test_a_step_is_of_one_flow_of_an_organisation(engine: sa.Engine) -> None:
    catalog = Catalog(engine)
    organisation, [first, second] = make_flows(engine, [2, 1])
    taken = Flow(organisation, new_id(), "Third", "tour", [*second.steps, first.steps[1]])
    with pytest.raises(CatalogError, match=first.steps[1].step_id):
        catalog.import_flow(Flow(organisation, new_id(), "Fine", "tour", []), taken, Flow(*_without(second)))
    assert {flow.name for flow in catalog.flows_of(organisation)} == {"Flow 0", "Flow 1"}, "none was imported"
    catalog.import_flow(first)  # its own steps are no others'
    catalog.import_flow(Flow(*_without(second)), Flow(organisation, taken.flow_id, "Third", "tour", second.steps))
    elsewhere, _ = make_flows(engine, [])
    catalog.import_flow(Flow(elsewhere, new_id(), "Same steps", "tour", first.steps))


def _without(flow: Flow) -> tuple[str, str, str, str, list[Any]]:
    return flow.organisation, flow.flow_id, flow.name, flow.type, []


def test_a_store_that_has_no_tables_yet_is_a_503(tmp_path: Path, store_url: str) -> None:
    with stepping(f"sqlite:///{tmp_path}/log.db", store_url, worker=False) as running:
        with running.engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE checklist_progress"))
        answer = running.get(progress_path(running), userId="u")
        assert (answer.status_code, answer.content) == (503, b'{"error":"Service unavailable"}')
