"""`zenstep demo`: plays traffic against the whole system, shows the funnel and the accounts. Exit 1 if they are off."""

import asyncio
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import httpx
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from backends.store.catalog import Catalog
from backends.store.counting import Counting
from backends.store.engine import open_engine
from cli.output import command
from cli.token import session_token
from cli.traffic import Request, flows_of, play
from schemas.limits import MAX_LIMIT
from schemas.topics import Topics

CLIENTS = 16
START_SECONDS = 20
COUNT_SECONDS = 40
STOP_SECONDS = 30
ORGANISATIONS = ("Acorn", "Birch")


@click.command()
@click.option(
    "--events", type=click.IntRange(100, 1_000_000), default=20_000, show_default=True, help="How many at least."
)
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed plays the same sessions.")
@command
def demo(events: int, seed: int) -> None:
    """Play sessions against the whole system.

    They go through HTTP; then the funnels and the accounts are shown. Exit code 1 if the accounts are off.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    console = Console()
    with tempfile.TemporaryDirectory(prefix="zenstep-demo-") as folder:
        if not _play(console, Path(folder), events, seed):
            raise click.exceptions.Exit(1)
    console.print(
        "\nNext: [bold]make dev[/] runs the same system for a page of yours; "
        "[bold]docker compose up[/] runs it on Kafka and PostgreSQL; the README says how to send a beacon."
    )


def _play(console: Console, folder: Path, events: int, seed: int) -> bool:
    from cli import embedded

    port, admin_port = _free_port(), _free_port()
    settings = embedded.settings_in(folder, port, admin_port)
    embedded.prepare(settings)
    engine = open_engine(settings.store_url)
    catalog = Catalog(engine)
    rng = random.Random(seed)
    organisations = [catalog.create_organisation(name) for name in ORGANISATIONS]
    keys = [catalog.create_key(organisation) for organisation in organisations]
    for organisation in organisations:
        catalog.set_limit(organisation, "events", MAX_LIMIT)  # hours of traffic in seconds
    user = str(uuid.uuid4())
    flows = [flows_of(organisation, rng) for organisation in organisations]
    for organisation, theirs in zip(organisations, flows, strict=True):
        catalog.add_member(organisation, user)
        catalog.import_flow(*theirs)
    child = _start(folder, port, admin_port)
    try:
        _wait_ready(child, admin_port)
        requests = play(flows, events, time.time_ns() // 1_000_000, rng)
        sent = asyncio.run(_send(console, f"http://127.0.0.1:{port}", requests, keys, events))
        ledger = _wait_counted(console, Counting(engine), sent.accepted)
        token = session_token(settings.require("jwt_secret"), settings.jwt_issuer, user)
        for name, theirs in zip(ORGANISATIONS, flows, strict=True):
            path = f"http://127.0.0.1:{port}/api/v1/flows/{theirs[0].flow_id}/analytics"
            answer = httpx.get(path, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False)
            answer.raise_for_status()
            _show(console, name, answer.json())
    except httpx.HTTPError as error:
        raise click.ClickException(f"the system failed: {str(error) or type(error).__name__}") from None
    finally:
        _end(child)
        engine.dispose()
    return _balance(console, sent, ledger)


def _start(folder: Path, port: int, admin_port: int) -> "subprocess.Popen[bytes]":
    arguments = ["dev", "--data", str(folder), "--port", str(port), "--admin-port", str(admin_port)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZENSTEP_")}
    command_line = [sys.executable, "-c", "from cli.main import main; main()", *arguments]
    # Ctrl-C reaches both; until the child serves it is for this process alone, which ends the child.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.Popen(command_line, stdout=subprocess.DEVNULL, env=environment)
    finally:
        signal.signal(signal.SIGINT, interrupt)


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _wait_ready(child: "subprocess.Popen[bytes]", admin_port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=2, trust_env=False) as http:  # one: each reads the machine's certificates
        while time.monotonic() < deadline:
            if child.poll() is not None:
                raise click.ClickException(f"the system ended with exit code {child.returncode}")
            try:
                if http.get(f"http://127.0.0.1:{admin_port}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    raise click.ClickException(f"the system was not ready after {START_SECONDS} s")


class Sent(NamedTuple):
    """What was sent: requests, their events, those of them that a 202 accepted, and how long it took."""

    requests: int
    events: int
    accepted: int
    seconds: float


async def _send(console: Console, base: str, requests: Iterator[Request], keys: list[str], events: int) -> Sent:
    started = time.perf_counter()
    count = sent = accepted = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("events sent", total=events)

        async def client() -> None:
            nonlocal count, sent, accepted
            # A connection of its own, which is never idle for so long that the edge closes it under a request. The
            # loopback is never reached through a proxy of the environment.
            async with httpx.AsyncClient(base_url=base, verify=tls, timeout=30, trust_env=False) as http:
                for request in requests:
                    count += 1
                    sent += len(request.events)
                    body = orjson.dumps({"events": request.events})
                    answer = await http.post(_path(request, keys), content=body, headers=_headers(request, keys))
                    if answer.status_code == 202:
                        accepted += answer.json()["accepted"]
                    progress.advance(bar, len(request.events))

        tls = ssl.create_default_context()  # once: it reads the machine's certificates
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return Sent(count, sent, accepted, time.perf_counter() - started)


def _path(request: Request, keys: list[str]) -> str:
    return "/api/v1/events" + (f"?key={keys[request.organisation]}" if request.beacon else "")


def _headers(request: Request, keys: list[str]) -> dict[str, str]:
    if request.beacon:
        return {"Content-Type": "text/plain;charset=UTF-8"}
    return {"Content-Type": "application/json", "Authorization": f"Bearer {keys[request.organisation]}"}


def _wait_counted(console: Console, counting: Counting, accepted: int) -> dict[str, int]:
    topic = Topics().events  # the system that was started has no settings of the environment
    deadline = time.monotonic() + COUNT_SECONDS
    ledger: dict[str, int] = {}
    with console.status("counting"):
        while time.monotonic() < deadline:
            ledger = counting.ledger(topic=topic)
            if ledger.get("consumed", 0) >= accepted:
                break
            time.sleep(0.1)
    return ledger


def _show(console: Console, organisation: str, analytics: dict[str, Any]) -> None:
    totals = analytics["totals"]
    median = totals["medianSecondsToComplete"]
    table = Table(
        title=f"{organisation}, {analytics['flowName']}: {totals['starts']:,} starts, "
        f"{totals['completionRate']:.0%} completed"
        + (f", half of them within {median:.0f} s" if median is not None else ""),
        title_justify="left",
    )
    for name in ("step", "sessions", "", "users", "drop-off"):
        table.add_column(name, justify="left" if name in ("step", "") else "right")
    most = max([1, *(step["sessions"] for step in analytics["steps"])])
    for step in analytics["steps"]:
        bar = "█" * round(20 * step["sessions"] / most)
        numbers = f"{step['sessions']:,}", bar, f"{step['uniqueUsers']:,}", f"{step['dropOffRate']:.1%}"
        table.add_row(f"{step['position'] + 1}. {step['name']}", *numbers)
    console.print(table)


def _balance(console: Console, sent: Sent, ledger: dict[str, int]) -> bool:
    counted, duplicates = ledger.get("counted", 0), ledger.get("duplicate", 0)
    rejected = sum(events for outcome, events in ledger.items() if outcome.startswith("rejected:"))
    adds_up = sent.events == sent.accepted == counted + duplicates + rejected
    rate = sent.events / sent.seconds
    console.print(f"{sent.events:,} events in {sent.requests:,} requests, {sent.seconds:.1f} s: {rate:,.0f} events/s")
    console.print(
        f"[bold]sent {sent.events:,} = accepted {sent.accepted:,} = counted {counted:,} + duplicates {duplicates:,} "
        f"+ rejected {rejected:,}[/]  {'[green]adds up[/]' if adds_up else '[red]DOES NOT ADD UP[/]'}"
    )
    return adds_up


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
