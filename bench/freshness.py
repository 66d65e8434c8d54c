"""From the edge's 202 to the store: how long an accepted event takes to be counted, at half of what can be done.

`python -m bench.freshness`. Edge, Kafka, worker and PostgreSQL share the machine, and what they can do is what they
take in and count together when browsers send as fast as they are answered. Markers are single events sent beside the
load; each is looked for until the store has it.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import httpx
import psycopg
import sqlalchemy as sa
from rich.console import Console

from backends.store.catalog import Catalog, Flow
from backends.store.engine import open_engine
from bench import results
from bench.edge import show
from bench.processes import cost
from bench.worker_events import Shape, browser, catalogue
from bench.worker_load import PATH, Plan, Sent, event
from bench.worker_subjects import COUNTED
from bench.worker_world import World, world
from schemas import tables as t
from schemas.limits import MAX_LIMIT
from tests.processes import Process, role

SECRET = "a secret of the benchmarks"
PER_REQUEST = 50
CONNECTIONS = 32
MARKERS_PER_SECOND = 20.0
LOOK_SECONDS = 0.02
GIVE_UP_SECONDS = 60.0  # without anything more counted
WARM_SECONDS = 5.0
SATURATED_SECONDS = 10.0
# As pairs: of two lists PostgreSQL would look for every organisation with every id.
SEEN = """
SELECT seen.event_id::text FROM unnest(%s::uuid[], %s::uuid[]) AS wanted (organisation_id, event_id)
JOIN seen ON seen.organisation_id = wanted.organisation_id AND seen.event_id = wanted.event_id
AND seen.day BETWEEN %s AND %s
"""


class Marker(NamedTuple):
    organisation: str
    accepted: float


class Fresh(NamedTuple):
    """Events a second that can be counted at most, that were to be sent, that were accepted; seconds until counted; the
    worker's CPU us an event and its MiB.
    """

    saturation: float | None
    offered: float
    accepted: float
    markers: int
    p50: float
    p95: float
    p99: float
    most: float
    worker_us: float
    worker_rss: float


class Markers:
    """Sends single events of organisations in turn, and looks for them in the store."""

    def __init__(self, base: str, store: str, keys: Sequence[str], flows: Sequence[list[Flow]]) -> None:
        self._client = httpx.Client(base_url=base, trust_env=False, timeout=30)
        self._connection = psycopg.connect(store, autocommit=True)
        self._keys, self._flows = keys, flows
        self._rng = random.Random(2)
        self._waiting: dict[str, Marker] = {}
        self.delays: list[float] = []

    def run(self, seconds: float) -> None:
        """Raises ClickException where a marker does not arrive."""
        begun = time.monotonic()
        due = begun
        while (now := time.monotonic()) < begun + seconds or self._waiting:
            if due <= now < begun + seconds:
                due += 1 / MARKERS_PER_SECOND
                self._send()
            self._look()
            if now > begun + seconds + GIVE_UP_SECONDS:
                raise click.ClickException(f"{len(self._waiting)} markers were not counted in {GIVE_UP_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)

    def _send(self) -> None:
        rank = self._rng.randrange(len(self._keys))
        made = event(next(browser(self._flows[rank], self._rng)), self._rng)
        headers = {"Authorization": f"Bearer {self._keys[rank]}"}
        self._client.post(PATH, json={"events": [made]}, headers=headers).raise_for_status()
        self._waiting[made["id"]] = Marker(self._flows[rank][0].organisation, time.monotonic())

    def _look(self) -> None:
        if not self._waiting:
            return
        day = int(time.time() // t.DAY)
        organisations = [marker.organisation for marker in self._waiting.values()]
        rows = self._connection.execute(SEEN, (organisations, list(self._waiting), day - 1, day)).fetchall()
        now = time.monotonic()
        self.delays += [now - self._waiting.pop(row[0]).accepted for row in rows]

    def close(self) -> None:
        self._client.close()
        self._connection.close()


class Installation(NamedTuple):
    """An edge and a worker on empty topics; `keys` are one an organisation."""

    edge: Process
    worker: Process
    store: str
    keys: list[str]


@contextmanager
def installation(place: World, shape: Shape) -> Iterator[Installation]:
    empty = shape._replace(events=0)
    database = place.database(shape.organisations)
    settings = place.settings(empty, database) | {"user_hash_secret": SECRET}
    store = str(settings["store_url"])
    keys = make_keys(store, shape.organisations)
    with role("edge", settings, place.folder) as edge, role("worker", settings, place.folder) as worker:
        yield Installation(edge, worker, store, keys)


def make_keys(store: str, organisations: int) -> list[str]:
    """Of organisations that may send as much as they want."""
    engine = open_engine(store)
    owners = [flows[0].organisation for flows in catalogue(organisations)]
    rows = [{"organisation_id": owner, "bucket": "events", "per_minute": MAX_LIMIT} for owner in owners]
    with engine.begin() as connection:
        connection.execute(sa.insert(t.organisation_limits), rows)
    keys = [Catalog(engine).create_key(owner) for owner in owners]
    engine.dispose()
    return keys


def measure(place: World, shape: Shape, rate: float | None, seconds: float) -> Fresh:
    """At `rate` events a second, or half of what can be counted."""
    flows = catalogue(shape.organisations)
    with installation(place, shape) as (edge, worker, store, keys):
        port = int(edge.base.rpartition(":")[2])
        plan = Plan(port, keys, shape.organisations, PER_REQUEST, CONNECTIONS, 0.0, WARM_SECONDS)
        sent_before = _load(plan).events
        _settle(store, sent_before)
        saturation = None
        if rate is None:
            begun = time.monotonic()
            events = _load(plan._replace(seconds=SATURATED_SECONDS)).events
            sent_before += events
            _settle(store, sent_before)
            saturation = events / (time.monotonic() - begun)
            rate = saturation / 2
        before = cost(worker.process.pid)
        requests = rate / PER_REQUEST
        connections = max(1, min(CONNECTIONS, int(requests)))  # one that is idle for long is closed by the edge
        order = plan._replace(connections=connections, rate=requests, seconds=seconds)
        load = _loading(order)
        markers = Markers(edge.base, store, keys, flows)
        try:
            markers.run(seconds)
            sent = _sent(load)
            _settle(store, sent_before + sent.events + len(markers.delays))
            after = cost(worker.process.pid)
        finally:
            load.kill()
            markers.close()
    delays = sorted(markers.delays)
    p50, p95, p99 = (delays[int(q * (len(delays) - 1))] for q in (0.5, 0.95, 0.99))
    spent = (after.cpu - before.cpu) / (sent.events + len(delays)) * 1e6
    accepted = sent.events / sent.seconds
    return Fresh(saturation, rate, accepted, len(delays), p50, p95, p99, delays[-1], spent, after.rss / 2**20)


def _loading(plan: Plan) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench.worker_load", json.dumps(plan._asdict())]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _sent(load: "subprocess.Popen[str]") -> Sent:
    output, _ = load.communicate(timeout=60)
    if load.returncode != 0:
        raise click.ClickException("the load has failed")
    return Sent(**json.loads(output))


def _load(plan: Plan) -> Sent:
    return _sent(_loading(plan))


def _settle(store: str, events: int) -> None:
    """Until so many are counted, and no more."""
    last, moved = 0, time.monotonic()
    with psycopg.connect(store, autocommit=True) as connection:
        while True:
            row = connection.execute(COUNTED).fetchone()
            counted = row[0] if row else 0
            if counted == events:
                return
            if counted > last:
                last, moved = counted, time.monotonic()
            if counted > events or time.monotonic() > moved + GIVE_UP_SECONDS:
                raise click.ClickException(f"{counted} events are counted of {events}")
            time.sleep(0.1)


def table(shape: Shape, fresh: Fresh) -> results.Table:
    cells = [
        f"{fresh.saturation:,.0f}" if fresh.saturation else "",
        f"{fresh.offered:,.0f}",
        f"{fresh.accepted:,.0f}",
        f"{fresh.markers:,}",
    ]
    cells += [f"{seconds * 1000:.0f}" for seconds in (fresh.p50, fresh.p95, fresh.p99, fresh.most)]
    cells += [f"{fresh.worker_us:.1f}", f"{fresh.worker_rss:.0f}"]
    columns = ["events/s at most", "offered", "accepted", "markers", "p50 ms", "p95 ms", "p99 ms", "most ms"]
    columns += ["worker CPU us/event", "worker RSS MiB"]
    note = f"Everything on, {shape.organisations:,} organisations, {shape.partitions} partitions, requests of "
    note += f"{PER_REQUEST} events. Edge, worker, Kafka, PostgreSQL and the load share the machine's cores."
    return results.table("From acceptance to the store", columns, [cells], note)


@click.command()
@click.option("--rate", type=float, help="Events a second, instead of half of what can be counted.")
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--organisations", default=200, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON of the run, such as bench/results/freshness.json.")
def main(rate: float | None, seconds: float, organisations: int, out: Path | None) -> None:
    """Measure the time from 202 to the store under a steady load."""
    shape = Shape("full", 0, organisations=organisations)
    with world(apart=False) as place:
        fresh = measure(place, shape, rate, seconds)
    made = table(shape, fresh)
    show(Console(width=160), made)
    if out is not None:
        command = " ".join(["python -m bench.freshness", *sys.argv[1:]])
        results.write(out, "Freshness", command, [made], measured=fresh._asdict())


if __name__ == "__main__":
    main()
