"""`zenstep edge --processes 2`: two whole edges on one port, of which one may be killed at any moment."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import orjson
import pytest

from backends.spool import Entry, Spool
from ingest.processes import check_spools
from schemas.limits import MAX_LIMIT
from service.settings import Settings, SettingsError
from tests.commands import PROGRAM, Zenstep
from tests.edges import EVENTS, HEARTBEAT, World, bearer, make_topics, make_world, read_envelopes, view
from tests.limits import over, standing
from tests.processes import environment
from tests.servers.ports import end, free_port
from tests.working import until

# A busy machine is no outage of the Redis.
PATIENT = "import backends.limits.redis as limits; limits.ANSWER_SECONDS = 20.0; from cli.main import main; main()"


class Edges:
    """The parent. `admins` are the addresses of its children's admin ports, by their number."""

    def __init__(self, world: World, folder: Path, admin_port: int) -> None:
        self.world = world
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.admins = {1: f"http://127.0.0.1:{admin_port}", 2: f"http://127.0.0.1:{admin_port + 1}"}
        self.log = folder / "edge.log"
        settings = world.environment() | {"edge_port": self.port, "edge_admin_port": admin_port}
        command = [sys.executable, "-c", PATIENT, "edge", "--processes", "2"]
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(command, env=environment(settings), stderr=stderr)

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        return all(answers(f"{admin}/readyz") for admin in self.admins.values())

    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def metric(self, number: int, name: str) -> float:
        text = httpx.get(f"{self.admins[number]}/metrics", timeout=30).text
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def said(self, message: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["message"] == message]

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def send(self) -> str | None:
        """The id of an event that was acknowledged, over a connection of its own."""
        event = view(id=str(uuid.uuid4()))
        try:
            answer = httpx.post(
                f"{self.base}{EVENTS}", json={"events": [event]}, headers=bearer(self.world.keys[0]), timeout=30
            )
        except httpx.TransportError:
            return None
        return event["id"] if answer.status_code == 202 else None


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def two_free_ports() -> int:
    """The first of two that follow each other."""
    while True:
        first = free_port()
        with socket.socket() as second:
            try:
                second.bind(("127.0.0.1", first + 1))
            except (OSError, OverflowError):
                continue
        return first


def runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def edges(world: World, folder: Path, connected: bool = True) -> Iterator[Edges]:
    started = Edges(world, folder, two_free_ports())
    children: list[int] = []
    try:
        until(lambda: started.ready() and (not connected or not any(map(problems, started.admins.values()))))
        children = started.children()
        yield started
    finally:
        if started.process.poll() is None:
            children += started.children()
            end(started.process, 60)
        try:
            until(lambda: not any(map(runs, children)))
        finally:
            for child in filter(runs, children):
                os.kill(child, signal.SIGKILL)


def problems(admin: str) -> object:
    return httpx.get(f"{admin}/readyz", timeout=30).json()["problems"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """With a spool, without limits."""
    return unlimited(
        make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db", spool_path=str(tmp_path / "spool"))
    )


def unlimited(world: World) -> World:
    for organisation in world.organisations:
        world.catalog().set_limit(organisation, "events", MAX_LIMIT)
    return world


def ids_in_log(world: World) -> set[str]:
    return {event.id for envelope in read_envelopes(world) for event in envelope.events}


def test_both_serve_the_one_port_and_are_measured_apart(world: World, tmp_path: Path) -> None:
    sent: set[str] = set()
    with edges(world, tmp_path) as running, ThreadPoolExecutor(8) as senders:
        assert len(running.children()) == 2

        def accepted() -> list[float]:
            return [running.metric(number, "zenstep_events_accepted_total") for number in running.admins]

        def both() -> bool:
            ids = list(senders.map(lambda _: running.send(), range(20)))
            assert all(ids)
            sent.update(filter(None, ids))
            return min(accepted()) > 0

        until(both)
        assert sum(accepted()) == len(sent)
        assert running.terminate() == 0
    assert ids_in_log(world) == sent
    assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == ["1", "2"]


@pytest.mark.parametrize("log", ["there", "away"])
def test_one_that_is_killed_loses_nothing_that_was_acknowledged_and_is_replaced(
    tmp_path: Path, world: World, log: str
) -> None:
    if log == "away":  # its topics are still to be made: all goes into the two spools
        other = replace(world.settings, topic_prefix=f"t{uuid.uuid4().hex}")
        world = world._replace(settings=other)
    acknowledged: set[str] = set()
    done = threading.Event()
    with ExitStack() as stack:
        running = stack.enter_context(edges(world, tmp_path, connected=log == "there"))
        before = running.children()

        def sending() -> None:
            while not done.is_set():
                sent = running.send()
                if sent is not None:
                    acknowledged.add(sent)

        senders = [threading.Thread(target=sending) for _ in range(4)]
        for sender in senders:
            sender.start()
        stack.callback(done.set)

        def served_by(number: int) -> bool:
            return running.metric(number, "zenstep_events_accepted_total") > 10

        until(lambda: all(map(served_by, running.admins)))
        os.kill(before[0], signal.SIGKILL)
        until(lambda: running.said("process ended, another is started"))
        until(lambda: len(running.children()) == 2 and running.ready() and all(map(served_by, running.admins)))
        done.set()
        for sender in senders:
            sender.join()
        assert len(set(running.children()) & set(before)) == 1
        (line,) = running.said("process ended, another is started")
        assert (line["child"], line["status"]) in [(1, -signal.SIGKILL), (2, -signal.SIGKILL)]
        if log == "away":
            make_topics(world)
        until(lambda: all(running.metric(number, "zenstep_spool_events") == 0 for number in running.admins))
        assert running.terminate() == 0
    assert acknowledged <= ids_in_log(world)


def test_told_to_end_all_answer_what_is_in_flight_and_take_nothing_more(world: World, tmp_path: Path) -> None:
    event = view(id=str(uuid.uuid4()))
    body = orjson.dumps({"events": [event]})
    head = (
        f"POST {EVENTS}?key={world.keys[0]} HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with edges(world, tmp_path) as running:
        children = running.children()
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # it is under way, in one of the two
            running.process.send_signal(signal.SIGTERM)
            until(lambda: refused(running.port))
            assert running.process.poll() is None
            connection.sendall(body)
            assert connection.recv(100).startswith(b"HTTP/1.1 202 ")
        assert running.process.wait(60) == 0
        assert not any(map(runs, children))
    assert ids_in_log(world) == {event["id"]}


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def test_children_end_in_order_when_their_parent_is_killed(world: World, tmp_path: Path) -> None:
    with edges(world, tmp_path) as running:
        children = running.children()
        sent = running.send()
        running.process.kill()
        running.process.wait(20)
        until(lambda: not any(map(runs, children)))
        assert len(running.said("the parent process is gone, so this one ends")) == 2
        assert refused(running.port)
        for number in (1, 2):
            Spool(tmp_path / "spool" / str(number), 10**9, 10**9).close()
    assert ids_in_log(world) == {sent}


def test_limits_are_counted_together(world: World, tmp_path: Path, redis_url: str) -> None:
    limited = world._replace(settings=replace(world.settings, limits_url=redis_url))
    key = bearer(world.keys[1])
    with edges(limited, tmp_path) as running, ThreadPoolExecutor(8) as senders:
        answered = list(senders.map(lambda _: httpx.get(f"{running.base}{HEARTBEAT}", headers=key), range(30)))
    left = [standing(answer)[2] for answer in answered if not over(answer)]
    assert sorted(left) == list(range(10))


def test_where_one_cannot_start_at_all_none_stays(world: World, tmp_path: Path) -> None:
    first = two_free_ports()
    with socket.create_server(("127.0.0.1", first + 1)):
        running = Edges(world, tmp_path, first)
        try:
            assert running.process.wait(60) == 1
        finally:
            end(running.process)
    (line,) = running.said("process cannot start")
    assert line["child"] == 2
    assert line["problem"] == f"cannot listen on 127.0.0.1:{first + 1}: the port is in use"
    assert refused(running.port)


class TestSpoolsOfAnotherNumberOfProcesses:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "spool"

    @pytest.fixture
    def zenstep(self, tmp_path: Path, folder: Path) -> Zenstep:
        command = Zenstep(f"sqlite:///{tmp_path}/store.db", tmp_path)
        command.environment |= {"ZENSTEP_SPOOL_PATH": str(folder), "ZENSTEP_USER_HASH_SECRET": "x" * 16}
        command("migrate")
        command("topics", "create")
        return command

    @pytest.mark.parametrize(("left", "processes"), [("1", 1), ("3", 2), ("10", 9), (".", 2)])
    def test_are_not_forgotten(self, zenstep: Zenstep, folder: Path, left: str, processes: int) -> None:
        for used in range(1, processes + 1) if processes > 1 else ["."]:
            spooled(folder / str(used), 7)
        spooled(folder / left, 1200)
        command = [str(PROGRAM), "edge", "--processes", str(processes)]
        given = os.environ | zenstep.environment
        done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            f"Error: 1,200 events wait in {folder / left}, which no process would flush: start with as many as before, "
            f"or run `zenstep spool flush --path {folder / left}` first\n",
        )
        assert "1,200 events in 1 lines put" in zenstep("spool", "flush", "--path", str(folder / left))
        check_spools(Settings(spool_path=str(folder)), processes)

    def test_are_another_edges_while_it_runs(self, zenstep: Zenstep, folder: Path) -> None:
        spooled(folder, 0)
        other = Spool(folder, 10**9, 10**9)
        with pytest.raises(SettingsError, match=f"^ZENSTEP_SPOOL_PATH: {folder} is in use by another process$"):
            check_spools(Settings(spool_path=str(folder)), 2)
        other.close()
        zenstep.environment["ZENSTEP_EDGE_ADMIN_PORT"] = "9871"
        second = Spool(folder / "2", 10**9, 10**9)
        assert zenstep.refuses("spool", "status").endswith("at http://127.0.0.1:9872/metrics")
        second.close()

    def test_are_all_shown_and_flushed(self, zenstep: Zenstep, folder: Path) -> None:
        for number in (2, 10, 1):
            spooled(folder / str(number), number)
        (folder / "lost+found").mkdir()
        shown = zenstep.json("spool", "status")["spools"]
        assert [(one["path"], one["events"]) for one in shown] == [(f"{folder}/{n}", n) for n in (1, 2, 10)]
        assert [line for line in zenstep("spool", "status").splitlines() if line.startswith("/")] == [
            f"{folder}/{n}:" for n in (1, 2, 10)
        ]
        flushed = zenstep.json("spool", "flush")["spools"]
        assert [one["flushed"]["events"] for one in flushed] == [1, 2, 10]
        assert [one["events"] for one in zenstep.json("spool", "status")["spools"]] == [0, 0, 0]


def spooled(folder: Path, events: int) -> None:
    spool = Spool(folder, 10**9, 10**9)
    if events:
        spool.append([Entry("zenstep.events", "acorn", 1_700_000_000_000, events, b"{}")])
    spool.close()
