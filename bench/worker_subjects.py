"""Who is measured on a filled topic: our worker as a process, and its peers; each started on a database of its own."""

import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psycopg

from bench.processes import pin
from bench.worker_events import Shape
from bench.worker_world import SERVER_CORE, World
from tests.processes import Process
from tests.servers.ports import end

BATCH_EVENTS = 10_000
PEERS = Path(__file__).with_name("peers")
PYTHON = PEERS.parents[1] / ".venv-peers" / "bin" / "python"

COUNTED = "SELECT coalesce(sum(events), 0)::bigint FROM ledger WHERE outcome = 'counted'"
# Every event is of a flow, so each is in one cell of a quarter, and each has left its id.
OURS = """
SELECT (SELECT coalesce(sum(views + completions + skips + dismissals), 0)::bigint FROM counts WHERE grain = 900),
       (SELECT count(*) FROM seen),
       (SELECT coalesce(sum(events), 0)::bigint FROM ledger WHERE outcome = 'consumed')
"""
PEER_COUNTED = "SELECT coalesce(sum(views + completions + skips + dismissals), 0)::bigint FROM peer_counts"
THEIRS = f"SELECT ({PEER_COUNTED}), (SELECT count(*) FROM peer_seen)"


class Subject(NamedTuple):
    """`counted` is the question how many events are in; every column of `accounts` must say the same at the end."""

    name: str
    version: str
    counted: str
    accounts: str
    start: "Callable[[World, Shape, str, str], subprocess.Popen[bytes]]"


def batch_records(shape: Shape) -> int:
    return BATCH_EVENTS // shape.per_record


def prepare(world: World, subject: Subject, shape: Shape) -> str:
    """A database that the subject can begin on."""
    database = world.database(shape.organisations)
    if subject is not OURSELVES:
        with psycopg.connect(f"{world.postgres.url}/{database}", autocommit=True) as connection:
            connection.execute((PEERS / "worker_tables.sql").read_bytes())
    return database


def begin(world: World, subject: Subject, shape: Shape, database: str, group: str) -> "subprocess.Popen[bytes]":
    started = subject.start(world, shape, database, group)
    pin(started.pid, SERVER_CORE)
    return started


def stop(process: "subprocess.Popen[bytes]") -> None:
    end(process, 40)


def _ours(world: World, shape: Shape, database: str, group: str) -> "subprocess.Popen[bytes]":
    settings = world.settings(shape, database) | {"group": group, "batch_records": batch_records(shape)}
    return Process("worker", settings, world.folder / f"worker-{uuid.uuid4().hex}.log").process


def _peer(module: str) -> "Callable[[World, Shape, str, str], subprocess.Popen[bytes]]":
    def start(world: World, shape: Shape, database: str, group: str) -> "subprocess.Popen[bytes]":
        if not PYTHON.exists():
            raise FileNotFoundError(f"{PYTHON}: run make .venv-peers/ready")
        arguments = {
            "servers": world.kafka.servers,
            "topic": f"{world.prefix(shape)}.events",
            "group": group,
            "database": f"{world.postgres.url}/{database}",
            "records": batch_records(shape),
        }
        command = [str(PYTHON), "-W", "ignore", str(PEERS / f"{module}.py")]
        command += [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
        with (world.folder / f"{module}-{uuid.uuid4().hex}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=world.folder)

    return start


def _version(package: str) -> str:
    found = list((PYTHON.parents[1] / "lib").glob(f"python3*/site-packages/{package.replace('-', '_')}-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").rpartition("-")[2] if found else ""


def _of_peers(name: str, package: str, module: str) -> Subject:
    return Subject(name, _version(package), PEER_COUNTED, THEIRS, _peer(module))


OURSELVES = Subject("ours", "", COUNTED, OURS, _ours)
PLAIN = _of_peers("kafka-python", "kafka-python", "worker_plain")
QUIX = _of_peers("quixstreams", "quixstreams", "worker_quix")
ARROYO = _of_peers("sentry-arroyo", "sentry-arroyo", "worker_arroyo")
FAUST = _of_peers("faust-streaming", "faust-streaming", "worker_faust")
ALL = (OURSELVES, PLAIN, QUIX, ARROYO, FAUST)
