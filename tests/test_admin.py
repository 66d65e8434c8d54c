"""The admin port: alive whatever is away, ready with the reason why not, metrics, and clients that misbehave."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from backends.store.engine import open_engine
from ingest.main import EdgeService
from service import metrics
from service.admin import AdminServer, Check, NeededAtStart
from service.settings import SettingsError
from tests.edges import make_topics, make_world
from tests.running import serving
from tests.servers.ports import free_port
from tests.working import until


@contextmanager
def admin(**checks: Check) -> Iterator[tuple[AdminServer, httpx.Client]]:
    server = AdminServer("127.0.0.1", 0, checks)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
        yield server, client
    server.close()


def readiness(client: httpx.Client) -> tuple[int, dict[str, object]]:
    answer = client.get("/readyz")
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


def test_it_is_ready_when_nothing_is_wrong() -> None:
    with admin(log=lambda: None, store=lambda: None) as (_, client):
        assert readiness(client) == (200, {"ready": True, "problems": {}})


def test_it_is_not_ready_and_names_everything_that_is_wrong() -> None:
    with admin(log=lambda: "does not answer", store=lambda: None, worker=lambda: "stopped") as (_, client):
        assert readiness(client) == (503, {"ready": False, "problems": {"log": "does not answer", "worker": "stopped"}})


def test_it_is_asked_anew_each_time() -> None:
    problems = ["away", None, "away again"]
    with admin(log=lambda: problems.pop(0)) as (_, client):
        assert [readiness(client)[0] for _ in range(3)] == [503, 200, 503]


def test_it_is_not_ready_while_draining() -> None:
    with admin(log=lambda: None) as (server, client):
        server.draining = True
        assert readiness(client) == (503, {"ready": False, "problems": {"draining": "shutting down"}})
        assert client.get("/livez").status_code == 200


def test_it_is_alive_whatever_is_away() -> None:
    def fail() -> str | None:
        raise AssertionError("liveness asks nobody")

    with admin(log=fail, store=fail) as (_, client):
        answer = client.get("/livez")
        assert (answer.status_code, answer.json()) == (200, {"ok": True})


def test_what_is_needed_at_the_start_is_later_only_named() -> None:
    answers: list[str | None] = ["does not answer", None, "does not answer"]
    with admin(store=NeededAtStart(lambda: answers.pop(0))) as (_, client):
        away = {"store": "does not answer"}
        assert readiness(client) == (503, {"ready": False, "problems": away})
        assert readiness(client) == (200, {"ready": True, "problems": {}})
        assert readiness(client) == (200, {"ready": True, "problems": away})


def test_a_check_that_fails_is_a_problem_by_the_name_of_its_error_alone() -> None:
    def fail() -> str | None:
        raise ZeroDivisionError("planted")

    with admin(log=fail, store=lambda: None) as (_, client):
        assert readiness(client) == (503, {"ready": False, "problems": {"log": "ZeroDivisionError"}})


def test_a_check_that_hangs_holds_nothing_up_and_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.admin.CHECK_SECONDS", 0.05)
    go = threading.Event()
    asked: list[str] = []

    def hang() -> str | None:
        asked.append("log")
        go.wait(60)
        return None

    with admin(log=hang, store=lambda: "away") as (_, client):
        problems = {"log": "does not answer", "store": "away"}
        for _ in range(3):
            assert readiness(client) == (503, {"ready": False, "problems": problems})
        assert asked == ["log"]
        go.set()
        until(lambda: readiness(client)[1]["problems"] == {"store": "away"})


def test_metrics_are_in_the_format_of_prometheus() -> None:
    metrics.heartbeats_accepted.inc()
    with admin() as (_, client):
        answer = client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert "# HELP zenstep_heartbeats_accepted_total Heartbeats answered with a 2xx.\n" in answer.text


@pytest.mark.parametrize("path", ["/", "/livez/", "/readyzz", "/api/v1/events"])
def test_another_path_is_not_found(path: str) -> None:
    with admin() as (_, client):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})


def test_a_client_that_misbehaves_leaves_no_trace_on_standard_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with admin() as (server, client):
        for sent in (b"", b"\x16\x03\x01", b"GET /metrics HTTP/1.1\r\n"):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(sent)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        until(lambda: not [thread for thread in threading.enumerate() if "process_request" in thread.name])
        assert client.get("/livez").status_code == 200
    assert capfd.readouterr().err == ""


def test_a_port_in_use_is_said_in_one_line() -> None:
    with admin() as (server, _), pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{server.port}.*in use"):
        AdminServer("127.0.0.1", server.port, {})


def test_an_edge_is_ready_when_its_log_has_its_topics_and_its_store_its_tables(log_url: str, tmp_path: Path) -> None:
    world = make_world(log_url, f"sqlite:///{tmp_path}/store.db", topics=False)
    engine = open_engine(world.settings.store_url)
    service = EdgeService(world.settings, engine)
    with admin(**service.checks()) as (_, client), serving(service.app()):
        assert readiness(client) == (503, {"ready": False, "problems": {"log": "not connected yet"}})
        make_topics(world)
        until(lambda: readiness(client) == (200, {"ready": True, "problems": {}}))
    engine.dispose()


def test_an_edge_without_log_and_store_names_both(tmp_path: Path) -> None:
    world = make_world(f"kafka://127.0.0.1:{free_port()}", f"sqlite:///{tmp_path}/store.db", topics=False)
    engine = open_engine(f"postgresql://postgres@127.0.0.1:{free_port()}/store")
    service = EdgeService(world.settings, engine)
    with admin(**service.checks()) as (_, client):
        problems = {"log": "not connected yet", "store": "does not answer"}
        assert readiness(client) == (503, {"ready": False, "problems": problems})
    engine.dispose()
