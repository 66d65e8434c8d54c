"""`zenstep demo` and `zenstep dev` as a person runs them."""

import io
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from cli import demo
from tests.commands import PROGRAM
from tests.servers.ports import free_port

WAIT_SECONDS = 60
ACCOUNTS = re.compile(
    r"sent ([\d,]+) = accepted ([\d,]+) = counted ([\d,]+) \+ duplicates ([\d,]+) \+ rejected ([\d,]+)  (.*)"
)


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


@contextmanager
def started(folder: Path, *arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """The program in a session of its own, its temporary files in the folder. Killed where a test leaves it running."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ZENSTEP_")}
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=own | {"TMPDIR": str(folder), "COLUMNS": "160"} | environment,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def accounts(printed: str) -> tuple[list[int], str]:
    """Sent, accepted, counted, duplicates, rejected; and the verdict."""
    found = ACCOUNTS.search(printed)
    assert found is not None, printed
    *numbers, verdict = found.groups()
    return [int(number.replace(",", "")) for number in numbers], verdict


def test_the_demo_shows_a_funnel_and_accounts_that_add_up(tmp_path: Path) -> None:
    # A proxy that is set for the machine, and settings of another installation, are not for the demo's loopback.
    strange = {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1", "ZENSTEP_TOPIC_PREFIX": "other"}
    with started(tmp_path, "demo", "--events", "600", **strange) as process:
        printed, said = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, said) == (0, "")
    (sent, accepted, counted, duplicates, rejected), verdict = accounts(printed)
    assert sent == accepted == counted + duplicates + rejected >= 600
    assert verdict == "adds up"
    for organisation in demo.ORGANISATIONS:
        assert re.search(rf"{organisation}, Welcome tour: \d+ starts, \d+% completed", printed)
    steps = re.findall(r"│ (\d)\. (.+?) +│ +([\d,]+) │ (█*) +│ +([\d,]+) │ +(\d+\.\d%) │", printed)
    assert [step[0] for step in steps] == ["1", "2", "3", "4", "5"] * 2
    assert steps[0][1] == "Welcome"
    assert int(steps[0][2]) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_demo_ends_with_an_error_where_the_store_disagrees(tmp_path: Path) -> None:
    with started(tmp_path, "demo", "--events", "600") as process:
        wait_for(lambda: any(tmp_path.glob("zenstep-demo-*/developer.json")), process)  # its tables are made
        (store,) = tmp_path.glob("zenstep-demo-*/store.db")
        connection = sqlite3.connect(store, timeout=30)
        with connection:
            connection.execute("INSERT INTO ledger VALUES ('somebody', 'zenstep.events', 99, 'counted', 1)")
        connection.close()
        printed, said = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, said) == (1, "")
    (sent, accepted, counted, duplicates, rejected), verdict = accounts(printed)
    assert sent == accepted == counted + duplicates + rejected - 1
    assert verdict == "DOES NOT ADD UP"
    assert "Next:" not in printed


@pytest.mark.parametrize(
    ("sent", "accepted", "ledger", "verdict"),
    [
        (10, 10, {"consumed": 10, "counted": 8, "duplicate": 1, "rejected:unknown_flow": 1}, "adds up"),
        (10, 9, {"consumed": 9, "counted": 9}, "DOES NOT ADD UP"),
        (10, 10, {"consumed": 10, "counted": 9}, "DOES NOT ADD UP"),
        (10, 10, {"consumed": 10, "counted": 10, "duplicate": 1}, "DOES NOT ADD UP"),
        (10, 10, {}, "DOES NOT ADD UP"),
    ],
)
def test_accounts_add_up_only_when_every_event_has_one_place(
    sent: int, accepted: int, ledger: dict[str, int], verdict: str
) -> None:
    console = Console(file=io.StringIO(), width=160, record=True)
    assert demo._balance(console, demo.Sent(3, sent, accepted, 1.0), ledger) == (verdict == "adds up")
    assert accounts(console.export_text())[1] == verdict


@pytest.mark.parametrize(
    ("number", "to_all"),
    [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False)],
    ids=["Ctrl-C", "SIGINT", "SIGTERM"],
)
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, to_all: bool) -> None:
    with started(tmp_path, "demo", "--events", "1000000") as process:
        wait_for(lambda: any(tmp_path.glob("zenstep-demo-*/developer.json")), process)  # its child is up
        if to_all:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        _, said = process.communicate(timeout=WAIT_SECONDS)
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # the child would still be of this group
    assert (process.returncode, said.strip()) == (1, "Aborted!")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def developing(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str, list[str]]]:
    """`zenstep dev`, the address of its admin port, and the curl commands that it prints."""
    port, admin = free_port(), free_port()
    with started(folder, "dev", "--data", "files", "--port", str(port), "--admin-port", str(admin)) as process:
        assert process.stdout is not None
        printed: list[str] = []
        while not (printed and printed[-1].startswith("Metrics: ")):
            printed.append(process.stdout.readline())
            assert printed[-1], "".join(process.stderr or ())
        assert printed[0] == f"zenstep runs on http://127.0.0.1:{port} until Ctrl-C; its files are in files/\n"
        yield process, f"http://127.0.0.1:{admin}", [line.strip() for line in printed if line.startswith("  curl ")]


def answer_of(command: str) -> str:
    """What a printed curl command gives, its status in a line of its own at the end."""
    arguments = [*shlex.split(command), "--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def ready(admin: str) -> bool:
    try:
        with urllib.request.urlopen(f"{admin}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_dev_takes_the_commands_it_prints_and_keeps_what_it_took(tmp_path: Path, number: signal.Signals) -> None:
    with developing(tmp_path) as (process, admin, (send, read)):
        wait_for(lambda: ready(admin), process)
        assert answer_of(send) == '{"accepted":1}\n202'
        process.send_signal(number)  # at once: whether it is counted by now is left open
        printed, said = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, printed, said) == (0, "", "")
    with developing(tmp_path) as (process, admin, (send_again, read)):
        assert re.sub(r":\d+/", ":/", send_again) == re.sub(r":\d+/", ":/", send)
        wait_for(lambda: json.loads(answer_of(read).rpartition("\n")[0])["totals"]["views"] == 1, process)
        process.send_signal(number)
        assert process.wait(WAIT_SECONDS) == 0


def test_what_dev_keeps_is_for_its_owner_alone(tmp_path: Path) -> None:
    with developing(tmp_path) as (process, _, _):
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0
    files = tmp_path / "files"
    assert oct(files.stat().st_mode & 0o777) == "0o700"
    for secret in ("secrets.json", "developer.json"):
        assert oct((files / secret).stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize("which", ["--port", "--admin-port"])
def test_dev_on_a_port_in_use_says_so(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        used = str(server.getsockname()[1])
        ports = {"--port": str(free_port()), "--admin-port": str(free_port())} | {which: used}
        with started(tmp_path, "dev", *(part for option in ports.items() for part in option)) as process:
            printed, said = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, printed) == (1, "")
    assert said == f"Error: cannot listen on 127.0.0.1:{used}: the port is in use\n"


def test_dev_with_a_folder_that_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with started(tmp_path, "dev", "--data", "data/zenstep") as process:
        printed, said = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, printed) == (1, "")
    assert said == "Error: data/zenstep: Not a directory\n"
