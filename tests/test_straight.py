"""Events that need no task: the same comes of them as of those that do, and what fails in one step fails alone."""

import asyncio
import gzip
import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import httpx
import orjson
import pytest
from prometheus_client import REGISTRY

from backends.limits import MemoryLimits, Window
from backends.log import Producer
from backends.store.keys import Key
from ingest.call import Call
from ingest.decode import UserHasher
from ingest.durable import Durable
from ingest.endpoint import Endpoint
from ingest.enqueue import Enqueuer
from ingest.outcomes import Outcomes
from ingest.straight import Straight
from ingest.submit import Submit
from schemas import records
from schemas.limits import Verdict
from service.connections import BoundedProtocol
from service.cycle import Cycle
from tests import wire
from tests.edges import EVENTS, Running, World, edge, locked, make_world, read_envelopes, read_refused, view
from tests.held import Held
from tests.processes import role
from tests.wire import Connection, request
from tests.working import until

Answer = tuple[int, dict[bytes, bytes], bytes]
ACCEPTED, UNAVAILABLE = b'{"accepted":1}', b'{"error":"Service unavailable"}'
FAULT = b'{"error":"Internal server error"}'
CRAWLER = "User-Agent: Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
ONE = orjson.dumps(
    {"events": [view(id="0190a1b2-0000-7000-8000-000000000001", userId="ann", url="https://a.example/?t=1")]}
)
MANY = orjson.dumps({"events": [view(id=f"0190a1b2-0000-7000-8000-0000000001{n:02}") for n in range(50)]})
BAD = orjson.dumps({"events": [view(eventType="looked", flowId=7), {}]})

SITUATIONS: list[tuple[int, bytes, list[str]]] = [
    (202, ONE, []),
    (202, MANY, ["Origin: https://shop.example.org", "Content-Type: application/json"]),
    (202, gzip.compress(ONE), ["Content-Encoding: gzip"]),
    (202, b"data=" + quote(ONE).encode(), ["Content-Type: application/x-www-form-urlencoded"]),
    (202, b"\xef\xbb\xbf" + ONE, ["Content-Type: text/plain;charset=UTF-8"]),
    (202, ONE, ["Sec-GPC: 1"]),
    (202, ONE, ["DNT: 1"]),
    (202, ONE, [CRAWLER]),
    (400, BAD, ["Origin: null"]),
    (400, b"[", []),
    (400, b"", []),
    (400, b"data=1&data=2", ["Content-Type: application/x-www-form-urlencoded"]),
    (400, b"no gzip", ["Content-Encoding: gzip"]),
    (413, gzip.compress(b" " * 600_000), ["Content-Encoding: gzip"]),
    (415, ONE, ["Content-Type: image/png"]),
    (415, ONE, ["Content-Encoding: compress"]),
    (202, ONE, []),
    (429, ONE, []),
    (429, BAD, []),
]


class Came(NamedTuple):
    """What a client, the topics and the metrics show."""

    answers: list[Answer]
    envelopes: list[Any]
    refused: list[Any]
    counted: dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request for events, whether it went without a task."""
    found: list[bool] = []
    own = Endpoint.at_once

    def noting(endpoint: Endpoint, cycle: Cycle) -> bool:
        found.append(own(endpoint, cycle))
        return found[-1]

    monkeypatch.setattr(Endpoint, "at_once", noting)
    return found


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[tuple[Running, Connection]]:
    """An edge that knows the first organisation's key, and a connection to it."""
    world = make_world(f"sqlite:///{folder}/log.db", f"sqlite:///{folder}/store.db", **settings)
    with edge(world) as client, wire.connected(client.base_url) as connection:
        connection.send(good(world, b"{}"))
        assert connection.answer()[0] == 400
        yield Running(world, client), connection


def good(world: World, body: bytes = ONE, *headers: str) -> bytes:
    return request(EVENTS, body, f"Authorization: Bearer {world.keys[0]}", *headers)


def said(answer: Answer) -> tuple[int, bytes]:
    return answer[0], answer[2]


def fault(*arguments: object) -> None:
    raise RuntimeError("planted")


def everything(folder: Path) -> Came:
    """Each situation, of an organisation that may send as many requests as are not over its limit."""
    folder.mkdir()
    before = counts()
    with running(folder) as (started, connection):
        world = started.world
        within = sum(status != 429 for status, _, _ in SITUATIONS)
        world.catalog().set_limit(world.organisations[1], "events", within)
        key = f"Authorization: Bearer {world.keys[1]}"
        answers = []
        for _, body, headers in SITUATIONS:
            connection.send(request(EVENTS, body, key, *headers))
            answers.append(connection.answer())
        refused = sum(answer[0] in (400, 413, 415) for answer in answers) + 1
        until(lambda: len(read_refused(world)) == refused)
        for _, headers_of, _ in answers:
            assert headers_of.pop(b"x-ratelimit-reset").isdigit()
            headers_of.pop(b"retry-after", None)
        envelopes, noted = ([plain(line) for line in found(world)] for found in (read_envelopes, read_refused))
    after = counts()
    return Came(
        answers, envelopes, sorted(noted, key=orjson.dumps), {name: after[name] - before.get(name, 0) for name in after}
    )


def plain(line: Any) -> dict[str, Any]:
    """Without what differs from one world to the next."""
    found = orjson.loads(records.encode(line))
    for event in found.get("events", []):
        assert event.pop("user", "f" * 64) not in ("ann", None)
    return {name: value for name, value in found.items() if name not in ("org", "received")}


def counts() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in REGISTRY.collect()
        if family.type == "counter" and family.name.startswith("zenstep_")
        for sample in family.samples
        if sample.name.endswith("_total") and "topic" not in sample.labels  # each world has its own
    }


def test_with_and_without_a_task_the_same_comes_of_a_request(
    tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = everything(tmp_path / "straight")
    assert [answer[0] for answer in straight.answers] == [status for status, _, _ in SITUATIONS]
    assert taken == [False, False, *[True] * (len(SITUATIONS) - 1)]  # each key was looked up once
    monkeypatch.setattr(Endpoint, "at_once", lambda endpoint, cycle: False)
    assert everything(tmp_path / "task") == straight


def test_requests_that_come_together_are_answered_in_order(tmp_path: Path, taken: list[bool]) -> None:
    with running(tmp_path) as (started, connection):
        connection.send(good(started.world) + good(started.world, BAD) + good(started.world))
        assert [connection.answer()[0] for _ in range(3)] == [202, 400, 202]
        assert len(read_envelopes(started.world)) == 2
    assert taken == [False, True, True, True]


NO_TARGET = [b"http://e", b"http://[::1/", b"http://e:99999999/"]


@pytest.mark.parametrize("target", NO_TARGET)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_target_that_is_none_behind_good_requests_takes_nothing_from_them(
    target: bytes, before: int, tmp_path: Path
) -> None:
    bad = b"GET %b HTTP/1.1\r\nHost: e\r\n\r\n" % target
    with running(tmp_path) as (started, connection):
        with wire.connected(started.client.base_url) as together:
            together.send(before * good(started.world) + bad)
            assert [together.answer()[0] for _ in range(before + 1)] == [*before * [202], 400]
            assert together.closed()
        connection.send(before * good(started.world))
        assert [connection.answer()[0] for _ in range(before)] == before * [202]
        connection.send(bad)
        assert connection.answer()[0] == 400
        assert connection.closed()
        assert len(read_envelopes(started.world)) == 2 * before


def test_a_target_that_is_none_waits_for_the_answer_to_the_request_before(tmp_path: Path, taken: list[bool]) -> None:
    with running(tmp_path) as (started, connection):
        with locked(tmp_path / "log.db"):
            connection.send(good(started.world))
            until(lambda: len(taken) == 2)
            malformed = malformed_requests()
            connection.send(b"GET http://e HTTP/1.1\r\nHost: e\r\n\r\n")
            until(lambda: malformed_requests() == malformed + 1)
        assert said(connection.answer()) == (202, ACCEPTED)
        assert connection.answer()[0] == 400
        assert connection.closed()


def malformed_requests() -> float:
    return REGISTRY.get_sample_value("zenstep_malformed_requests_total") or 0


def test_half_a_head_behind_a_request_has_the_time_of_a_head(
    tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.connections.IDLE_SECONDS", 0.05)
    with running(tmp_path) as (started, _), wire.connected(started.client.base_url) as connection:
        whole = good(started.world)
        with locked(tmp_path / "log.db"):
            connection.send(whole + whole[:20])
            until(lambda: len(taken) == 2)
        assert said(connection.answer()) == (202, ACCEPTED)
        with wire.connected(started.client.base_url) as idle:
            idle.send(whole)
            assert said(idle.answer()) == (202, ACCEPTED)
            assert idle.closed()
        connection.send(whole[20:])
        assert said(connection.answer()) == (202, ACCEPTED)


def test_a_client_that_does_not_read_its_answers_is_waited_for(
    tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written to a connection that is full has no bound; a task can wait."""
    with running(tmp_path) as (started, connection):
        monkeypatch.setattr(Cycle, "full", True)
        connection.send(good(started.world))
        assert said(connection.answer()) == (202, ACCEPTED)
    assert taken == [False, False]


def test_a_client_that_says_it_is_its_last_request_is_told_so_too(tmp_path: Path, taken: list[bool]) -> None:
    with running(tmp_path) as (started, connection):
        connection.send(good(started.world, ONE, "Connection: close"))
        status, headers, body = connection.answer()
        assert (status, headers[b"connection"], body) == (202, b"close", ACCEPTED)
        assert connection.closed()
    assert taken[-1]


def test_a_body_that_comes_in_pieces_needs_a_task(tmp_path: Path, taken: list[bool]) -> None:
    with running(tmp_path) as (started, connection):
        whole = good(started.world)
        connection.send(whole[:-1])
        until(lambda: len(taken) == 2)
        connection.send(whole[-1:])
        assert said(connection.answer()) == (202, ACCEPTED)
    assert taken == [False, False]


@pytest.mark.parametrize("broken", ["ingest.decode.envelope", "ingest.decode.decode", "schemas.records.encode"])
def test_a_fault_in_one_step_is_a_500_and_the_next_request_is_taken(
    broken: str, tmp_path: Path, taken: list[bool]
) -> None:
    with running(tmp_path) as (started, connection):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(broken, fault)
            connection.send(good(started.world))
            assert said(connection.answer()) == (500, FAULT)
        connection.send(good(started.world))
        assert said(connection.answer()) == (202, ACCEPTED)
    assert taken[-2:] == [True, True]


def test_a_fault_of_the_limiter_is_a_500(tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as (started, connection):
        monkeypatch.setattr(MemoryLimits, "add", fault)
        connection.send(good(started.world))
        assert said(connection.answer()) == (500, FAULT)
    assert taken[-1]


def test_an_answer_that_cannot_be_written_is_a_500_in_its_place(
    tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as (started, connection):
        monkeypatch.setattr("ingest.cors._lines", fault)
        connection.send(good(started.world))
        status, headers, body = connection.answer()
        assert (status, headers[b"connection"], body) == (500, b"close", FAULT)
        assert connection.closed()
        assert "request not answered" in caplog.messages
        assert len(read_envelopes(started.world)) == 1
    assert taken[-1]


@pytest.mark.parametrize("spool", [False, True])
def test_what_the_log_does_not_take_in_time_is_spooled_or_a_503(
    spool: bool, tmp_path: Path, taken: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, object] = {"spool_path": tmp_path / "spool"} if spool else {}
    with running(tmp_path, produce_timeout=0.2, **settings) as (started, connection):
        with locked(tmp_path / "log.db"):
            connection.send(good(started.world))  # no acknowledgement
            connection.send(good(started.world))  # a moment later not even asked
            answers = [said(connection.answer()) for _ in range(2)]
        assert answers == [(202, ACCEPTED) if spool else (503, UNAVAILABLE)] * 2
        until(lambda: len(read_envelopes(started.world)) >= 1 + spool)  # what was late is acknowledged after all
        connection.send(good(started.world, BAD))
        assert connection.answer()[0] == 400  # and nobody is answered twice
    assert taken[-3:] == [True, True, True]
    assert not [message for message in caplog.messages if "Cancel" in message]  # at the end nothing was waited for


def test_a_client_that_leaves_has_its_events_counted_all_the_same(
    tmp_path: Path, taken: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as (started, connection):
        with locked(tmp_path / "log.db"), wire.connected(started.client.base_url) as other:
            other.send(good(started.world))
            until(lambda: len(taken) == 2)
        until(lambda: len(read_envelopes(started.world)) == 1)
        connection.send(good(started.world))
        assert said(connection.answer()) == (202, ACCEPTED)
    assert taken[-2:] == [True, True]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_edge_that_is_told_to_end_answers_first(tmp_path: Path) -> None:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    with role("edge", world.environment(), tmp_path) as process, wire.connected(process.base) as connection:
        connection.send(good(world, b"{}"))
        assert connection.answer()[0] == 400
        with locked(tmp_path / "log.db"):
            connection.send(good(world))
            until(lambda: "zenstep_events_received_total 1.0" in httpx.get(f"{process.admin}/metrics").text)
            process.process.send_signal(signal.SIGTERM)
            until(lambda: "draining" in httpx.get(f"{process.admin}/readyz").json()["problems"])
        status, headers, body = connection.answer()
        assert (status, headers[b"connection"], body) == (202, b"close", ACCEPTED)
        assert process.process.wait(30) == 0
    assert len(read_envelopes(world)) == 1


def test_an_edge_that_is_told_to_end_waits_for_events_whose_client_has_left(tmp_path: Path) -> None:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    with role("edge", world.environment() | {"spool_path": tmp_path / "spool"}, tmp_path) as process:
        with locked(tmp_path / "log.db"):
            with wire.connected(process.base) as connection:
                connection.send(good(world, b"{}"))
                assert connection.answer()[0] == 400
                connection.send(good(world))
                until(lambda: "zenstep_events_received_total 1.0" in httpx.get(f"{process.admin}/metrics").text)
            process.process.send_signal(signal.SIGTERM)
            until(lambda: "draining" in httpx.get(f"{process.admin}/readyz").json()["problems"])
        assert process.process.wait(30) == 0
    assert len(read_envelopes(world)) == 1


@pytest.mark.parametrize("way", ["straight", "task"])
def test_a_client_that_leaves_before_the_limiter_has_looked_has_sent_its_events(
    way: str, tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, lost, looked = threading.Event(), threading.Event(), threading.Event()
    own, own_lost = MemoryLimits.add, BoundedProtocol.connection_lost

    async def held(limits: MemoryLimits, hits: Mapping[str, int]) -> Mapping[str, Window]:
        asked.set()
        await asyncio.get_running_loop().run_in_executor(None, looked.wait, 20)
        return await own(limits, hits)

    def losing(protocol: BoundedProtocol, error: Exception | None) -> None:
        own_lost(protocol, error)
        lost.set()

    if way == "task":
        monkeypatch.setattr(Endpoint, "at_once", lambda endpoint, cycle: False)
    with running(tmp_path) as (started, connection):
        monkeypatch.setattr(MemoryLimits, "add", held)
        monkeypatch.setattr(BoundedProtocol, "connection_lost", losing)
        with wire.connected(started.client.base_url) as other:
            other.send(good(started.world))
            assert asked.wait(20)
        assert lost.wait(20)
        looked.set()
        until(lambda: len(read_envelopes(started.world)) == 1)
        connection.send(good(started.world))
        assert said(connection.answer()) == (202, ACCEPTED)


def test_requests_behind_each_other_whose_client_leaves_are_no_fault(
    tmp_path: Path, taken: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as (started, connection):
        with locked(tmp_path / "log.db"), wire.connected(started.client.base_url) as other:
            other.send(3 * good(started.world))
            until(lambda: len(taken) == 2)
        until(lambda: len(read_envelopes(started.world)) >= 2)  # one was begun before it was seen that they have left
        connection.send(good(started.world))
        assert said(connection.answer()) == (202, ACCEPTED)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_who_is_cancelled_is_told_so_once() -> None:
    async def situation() -> None:
        connection = Held()
        cycle = Cycle(connection, {"type": "http", "method": "POST", "headers": []}, True, False)
        submit = Submit(
            UserHasher("a secret of the tests of events without a task"),
            Durable(Enqueuer(cast("Producer", None), "t", 1)),
        )
        call = Call(Key("an organisation"), cycle.scope, cycle.receive, b"[")
        straight = Straight(cycle, call, submit, Outcomes(EVENTS, ["POST"], None))
        cycle.hold(straight)
        straight.cancel("too long")
        await asyncio.sleep(0)
        straight.counted(Verdict(300, 299, 1_790_000_060, 0))
        assert connection.tasks == set()
        assert connection.written.count(b"HTTP/1.1 500") == connection.written.count(b"HTTP/1.1") == 1

    asyncio.run(situation())


def test_a_line_that_no_record_of_the_log_has_room_for_is_a_413(
    tmp_path: Path, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as (started, connection):
        monkeypatch.setattr("backends.log.sqlite.MAX_RECORD_BYTES", 10)
        connection.send(good(started.world))
        assert said(connection.answer()) == (413, b'{"error":"Payload too large"}')
    assert taken[-1]
