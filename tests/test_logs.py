"""Logs: one JSON object a line whatever happens, and nothing in them that a client or an operator keeps secret."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa

from backends.store.engine import open_engine
from service.logs import JsonFormatter
from tests.edges import EVENTS, HEARTBEAT, bearer, make_world, view
from tests.processes import environment, role
from tests.working import until


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def record_of(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("t").makeRecord("t", logging.INFO, "f", 1, message, arguments, None, extra=extra)


def test_a_line_tells_when_how_bad_who_and_what() -> None:
    line = formatted(record_of("log %s", "away", partition=3))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "logger": "t", "message": "log away", "partition": 3}


def test_an_exception_is_in_its_line() -> None:
    try:
        raise ValueError("of\ntwo lines")
    except ValueError:
        record = logging.getLogger("t").makeRecord("t", logging.ERROR, "f", 1, "m", (), sys.exc_info())
    assert formatted(record)["exception"].endswith("ValueError: of\ntwo lines")


@pytest.mark.parametrize("value", [2**80, "\ud800", {1: 2}, b"\xff", {1, 2}, object(), float("nan"), Path("/p")])
def test_what_json_cannot_say_is_still_a_line(value: object) -> None:
    assert formatted(record_of("m", value=value))["message"] == "m"


def test_an_error_of_the_store_does_not_repeat_the_values_of_its_statement(store_url: str) -> None:
    engine = open_engine(store_url)
    with pytest.raises(sa.exc.DBAPIError) as error, engine.connect() as connection:
        connection.execute(sa.text("SELECT :value FROM nowhere"), {"value": "planted"})
    engine.dispose()
    assert "nowhere" in str(error.value)
    assert "planted" not in str(error.value)


SPEAKING = """
import asyncio, logging, threading, warnings
from service.logs import configure
configure({level!r})
logging.getLogger("kafka.conn").debug("planted")
logging.getLogger("anything").info("said")
warnings.warn("planned to go", DeprecationWarning, stacklevel=1)
def fail(): raise ZeroDivisionError("on a thread")
thread = threading.Thread(target=fail); thread.start(); thread.join()
async def forget():
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0.01)
asyncio.run(forget())
raise ZeroDivisionError("at the end")
"""


@pytest.mark.parametrize("level", ["debug", "info"])
def test_whatever_a_process_has_to_say_is_a_line(level: str) -> None:
    program = [sys.executable, "-W", "always", "-c", SPEAKING.format(level=level)]
    done = subprocess.run(program, capture_output=True, text=True, env=environment({}), check=False, timeout=60)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, done.stdout) == (1, "")
    said = "\n".join(line["message"] + line.get("exception", "") for line in lines)
    for expected in ("said", "planned to go", "on a thread", "at the end"):
        assert expected in said
    assert "planted" not in said


@pytest.fixture
def kept_password(postgres_url: str) -> Iterator[str]:
    """The store's address with a password, which a server that trusts us does not look at."""
    scheme, _, rest = postgres_url.partition("://")
    user, _, place = rest.rpartition("@")
    yield f"{scheme}://{user.partition(':')[0]}:planted-password@{place}"


def test_no_secret_is_in_the_logs_of_an_edge_at_its_most_talkative(
    kafka_servers: str, kept_password: str, postgres_url: str, tmp_path: Path
) -> None:
    """Good, bad and foreign requests, and a store that goes away in between; all of it planted with secrets."""
    world = make_world(f"kafka://{kafka_servers}", kept_password, log_level="debug")
    settings = world.environment() | {"user_hash_secret": "planted-hash-secret", "jwt_secret": "planted-jwt-secret" * 2}
    server, _, database = postgres_url.rpartition("/")
    unknown = "planted0unknown0key0000000000000"
    secrets = [*world.keys, unknown, "planted"]
    event = view(
        userId="planted-user", anonymousId="planted-anonymous", sessionId="planted-session", name="planted-name",
        data={"card": "planted-data"}, url="https://planted.example.org/?token=planted-token",
    )  # fmt: skip
    page = {
        "Origin": "https://planted-origin.example.org",
        "Referer": "https://e.org/?planted-referer",
        "Cookie": "planted",
    }

    def traffic(base: str) -> list[int]:
        statuses = []
        with httpx.Client(base_url=base, headers=page, timeout=30) as client:
            for key in (*world.keys, unknown, "planted"):
                for body in ({"events": [event]}, {"events": [event | {"eventType": "planted"}]}, ["planted"]):
                    statuses.append(client.post(f"{EVENTS}?key={key}&planted", json=body).status_code)
                    statuses.append(client.post(EVENTS, json=body, headers=bearer(key)).status_code)
                statuses.append(client.get(f"{HEARTBEAT}?key={key}&planted=planted").status_code)
            statuses.append(client.get(f"/planted?key={unknown}").status_code)
            statuses.append(client.post(EVENTS, content=b"planted", headers={"Content-Type": "planted/x"}).status_code)
        return statuses

    with role("edge", settings, tmp_path) as process:
        assert {202, 400, 401, 200, 404} <= set(traffic(process.base))
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS false')
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))
            until(lambda: 503 in traffic(process.base))
            connection.execute(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS true')
        process.terminate()
        said = process.log.read_text()
    lines = [json.loads(line) for line in said.splitlines()]
    assert {"level", "logger", "message", "time"} <= set.intersection(*(set(line) for line in lines))
    assert "kafka" in said
    for secret in secrets:
        assert secret not in said
