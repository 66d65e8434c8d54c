"""The servers that are measured: our edge with everything on, what it is without one part, and its peers."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import httpx

from bench.bodies import PATH
from bench.edge_world import SECRET, SERVER_CORE, World
from bench.processes import Cost, cost, pin
from schemas.topics import Topics
from tests.processes import role
from tests.servers.ports import end, free_port
from tests.working import until

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "bench" / "peers"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"


class Subject(NamedTuple):
    """Processes that serve, on the server's core, and their ports."""

    name: str
    pids: list[int]
    ports: list[int]

    def cost(self) -> Cost:
        """Of all of them together."""
        each = [cost(pid) for pid in self.pids]
        return Cost(sum(c.user for c in each), sum(c.system for c in each), sum(c.rss for c in each))


Start = Callable[[World, int], AbstractContextManager[Subject]]
"""Of a world and the events in each request."""


@contextmanager
def _ours(world: World, name: str, edges: int = 1, **changed: object) -> Iterator[Subject]:
    with ExitStack() as stack:
        pids, ports = [], []
        for _ in range(edges):
            folder = Path(tempfile.mkdtemp(prefix="edge-", dir=world.folder))
            settings = {
                "log_url": f"kafka://{world.kafka}",
                "store_url": world.store_url,
                "limits_url": world.redis_url,
                "topic_prefix": world.prefix,
                "spool_path": folder / "spool",
                "user_hash_secret": SECRET,
                **changed,
            }
            process = stack.enter_context(role("edge", settings, folder))
            pin(process.process.pid, SERVER_CORE)
            pids.append(process.process.pid)
            ports.append(httpx.URL(process.base).port or 0)
        yield Subject(name, pids, ports)


@contextmanager
def _peer(world: World, name: str, module: str, environment: Mapping[str, str]) -> Iterator[Subject]:
    """Under uvicorn with uvloop and httptools, and without its log of every request, which ours has not either."""
    if not PEERS_PYTHON.exists():
        raise click.ClickException("the peers are not installed: make .venv-peers/ready")
    port = free_port()
    log = world.folder / f"{module}-{port}.log"
    command = [str(PEERS_PYTHON), "-m", "uvicorn", "--app-dir", str(PEERS), f"{module}:app", "--port", str(port)]
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    options += ["--timeout-keep-alive", "75"]  # as ours: a connection that waits for its turn is not to be lost
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], env={**os.environ, **environment}, stdout=output, stderr=output
        )
    try:
        until(lambda: _answers(process, port, log))
        pin(process.pid, SERVER_CORE)
        yield Subject(name, [process.pid], [port])
    finally:
        end(process)


def _answers(process: "subprocess.Popen[bytes]", port: int, log: Path) -> bool:
    if process.poll() is not None:
        raise click.ClickException(f"a peer has ended: {log.read_text()[-2000:]}")
    try:
        httpx.get(f"http://127.0.0.1:{port}{PATH}", timeout=5)
    except httpx.TransportError:
        return False
    return True


def _fastapi(world: World, name: str, **more: str) -> AbstractContextManager[Subject]:
    own = {
        "PEER_KAFKA": world.kafka,
        "PEER_TOPIC": Topics(world.prefix).events,
        "PEER_KEYS": str(world.organisations_file),
        "PEER_SECRET": SECRET,
    }
    return _peer(world, name, "fastapi_edge", own | more)


OURS, OURS_ALONE, OURS_TWO = "zenstep edge", "zenstep edge, limits in memory", "zenstep edge, two processes"
FASTAPI, GATHERED, NOOP = "FastAPI + aiokafka", "FastAPI + aiokafka, produced together", "uvicorn, no-op"

SUBJECTS: dict[str, Start] = {
    OURS: lambda world, events: _ours(world, OURS),
    OURS_ALONE: lambda world, events: _ours(world, OURS_ALONE, limits_url=""),
    OURS_TWO: lambda world, events: _ours(world, OURS_TWO, edges=2),
    FASTAPI: lambda world, events: _fastapi(world, FASTAPI),
    GATHERED: lambda world, events: _fastapi(world, GATHERED, PEER_GATHER="1"),
    NOOP: lambda world, events: _peer(world, NOOP, "noop_edge", {"PEER_EVENTS": str(events)}),
}
