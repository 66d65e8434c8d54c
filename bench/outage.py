"""The edge's memory through an outage of Kafka under a steady load: `python -m bench.outage`, loopback only.

A real edge with a spool, a real Kafka that is killed and started again, and clients that keep a rate whatever the edge
answers. Writes every sample as JSON and prints the phases as a table.
"""

import asyncio
import json
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import click
import httpx
from rich.console import Console
from rich.table import Table

from bench.machine import facts
from schemas.limits import MAX_LIMIT
from tests.edges import EVENTS, World, make_world
from tests.processes import Process
from tests.servers.kafka import LocalKafka
from tests.working import until

CONNECTIONS = 40
SAMPLE_SECONDS = 1.0


class Sample(NamedTuple):
    """A second of a run. Memory in KiB, latency in ms."""

    at: float
    phase: str
    rss: int
    spool_events: int
    spool_bytes: int
    statuses: dict[str, int]
    p50: float
    p99: float


class Load:
    """Requests at a steady rate over CONNECTIONS kept connections, on a thread with a loop of its own."""

    def __init__(self, base: str, keys: list[str], rate: float) -> None:
        url = httpx.URL(base)
        self._address = url.host, url.port
        self._keys = keys
        self._rate = rate
        self._ending = False
        self._lock = threading.Lock()
        self._statuses: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        self._thread.start()

    def take(self) -> tuple[Counter[str], list[float]]:
        """What was answered since the last call: by status, and the latencies in ms."""
        with self._lock:
            taken = self._statuses, self._latencies
            self._statuses, self._latencies = Counter(), []
        return taken

    def stop(self) -> None:
        self._ending = True
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(CONNECTIONS)))

    async def _client(self, number: int) -> None:
        pause = CONNECTIONS / self._rate
        due = time.monotonic() + pause * number / CONNECTIONS
        reader, writer = await asyncio.open_connection(*self._address)
        while not self._ending:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += pause  # late ones catch up: the rate is the clients', not the edge's
            started = time.monotonic()
            writer.write(_request(self._keys[number % len(self._keys)]))
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length"))
            await reader.readexactly(length)
            with self._lock:
                self._statuses[head[9:12].decode()] += 1
                self._latencies.append((time.monotonic() - started) * 1000)
        writer.close()


def _request(key: str) -> bytes:
    now = int(time.time() * 1000)
    event = (
        f'{{"events":[{{"id":"{uuid.uuid4()}","eventType":"view","flowId":"7b9f1e4e-41d5-4d44-8c7a-6f6e6e1b2a33",'
        f'"sessionId":"s-{now % 1000}","userId":"u-{now % 5000}","timestamp":{now}}}]}}'
    ).encode()
    head = (
        f"POST {EVENTS} HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(event)}\r\n\r\n"
    )
    return head.encode() + event


class Run:
    """The phases, one after the other, sampled all the while."""

    def __init__(self, edge: Process, load: Load) -> None:
        self._edge = edge
        self._load = load
        self._started = time.monotonic()
        self.samples: list[Sample] = []

    def phase(self, name: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(SAMPLE_SECONDS)
            self._sample(name)

    def until_flushed(self, name: str, seconds: float) -> float:
        """How long it took."""
        begun = time.monotonic()
        while True:
            self._sample(name)
            if self.samples[-1].spool_events == 0:
                return time.monotonic() - begun
            if time.monotonic() - begun > seconds:
                raise click.ClickException(f"the spool was not flushed in {seconds:.0f} s")
            time.sleep(SAMPLE_SECONDS)

    def _sample(self, phase: str) -> None:
        metrics = httpx.get(f"{self._edge.admin}/metrics", timeout=10).text.splitlines()
        spool = {line.split()[0]: float(line.split()[1]) for line in metrics if line.startswith("zenstep_spool_")}
        status = Path(f"/proc/{self._edge.process.pid}/status").read_text().splitlines()
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        statuses, latencies = self._load.take()
        latencies.sort()
        self.samples.append(
            Sample(
                at=round(time.monotonic() - self._started, 1),
                phase=phase,
                rss=rss,
                spool_events=int(spool["zenstep_spool_events"]),
                spool_bytes=int(spool["zenstep_spool_bytes"]),
                statuses=dict(statuses),
                p50=_quantile(latencies, 0.5),
                p99=_quantile(latencies, 0.99),
            )
        )


def _quantile(ordered: list[float], q: float) -> float:
    return round(ordered[int(q * (len(ordered) - 1))], 1) if ordered else 0.0


def summary(samples: list[Sample]) -> list[dict[str, Any]]:
    """A row a phase."""
    rows = []
    for phase in dict.fromkeys(sample.phase for sample in samples):
        theirs = [sample for sample in samples if sample.phase == phase]
        statuses: Counter[str] = Counter()
        for sample in theirs:
            statuses.update(sample.statuses)
        seconds = theirs[-1].at - theirs[0].at or 1.0
        rows.append(
            {
                "phase": phase,
                "seconds": round(seconds),
                "requests_per_second": round(statuses.total() / seconds),
                "statuses": dict(statuses),
                "rss_first_mib": round(theirs[0].rss / 1024, 1),
                "rss_last_mib": round(theirs[-1].rss / 1024, 1),
                "rss_most_mib": round(max(sample.rss for sample in theirs) / 1024, 1),
                "p99_ms_median": _quantile(sorted(sample.p99 for sample in theirs), 0.5),
                "spool_events_last": theirs[-1].spool_events,
            }
        )
    return rows


@click.command()
@click.option("--rate", default=1000.0, show_default=True, help="Requests a second.")
@click.option("--seconds", default=300.0, show_default=True, help="Of the outage.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON of the run.")
def main(rate: float, seconds: float, out: Path | None) -> None:
    """Kill Kafka under a running edge for a while, and show what its memory does."""
    with tempfile.TemporaryDirectory(prefix="zenstep-outage-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        kafka = LocalKafka(folder)
        world = _world(kafka, folder)
        edge = Process("edge", world.environment(), folder / "edge.log")
        try:
            until(edge.ready)
            load = Load(edge.base, world.keys, rate)
            run = Run(edge, load)
            try:
                run.phase("Kafka there", 20)
                kafka.kill()
                run.phase("outage", seconds)
                kafka.start()
                recovery = run.until_flushed("flushing", seconds + 60)
                run.phase("Kafka again", 20)
            finally:
                load.stop()
            code = edge.terminate()
        finally:
            edge.process.kill()
            kafka.close()
    _show(run.samples, recovery, code, rate, seconds, out)


def _world(kafka: LocalKafka, folder: Path) -> World:
    world = make_world(
        f"kafka://{kafka.servers}",
        f"sqlite:///{folder}/store.db",
        spool_path=str(folder / "spool"),
        log_level="warning",
    )
    for organisation in world.organisations:
        world.catalog().set_limit(organisation, "events", MAX_LIMIT)
    return world


def _show(samples: list[Sample], recovery: float, code: int, rate: float, seconds: float, out: Path | None) -> None:
    rows = summary(samples)
    table = Table(
        "phase", "s", "requests/s", "answers", "RSS first, last, most (MiB)", "p99 (ms)", "spooled at the end"
    )
    for row in rows:
        rss = f"{row['rss_first_mib']}, {row['rss_last_mib']}, {row['rss_most_mib']}"
        answers = " ".join(f"{status}: {count:,}" for status, count in row["statuses"].items())
        rates = f"{row['requests_per_second']:,}"
        spooled = f"{row['spool_events_last']:,}"
        table.add_row(row["phase"], str(row["seconds"]), rates, answers, rss, str(row["p99_ms_median"]), spooled)
    console = Console(width=140)
    console.print(table)
    console.print(f"flushed {recovery:.0f} s after Kafka was back; the edge ended with exit code {code}")
    if out is not None:
        document = {
            "command": f"python -m bench.outage --rate {rate:.0f} --seconds {seconds:.0f}",
            "date": time.strftime("%Y-%m-%d"),
            "machine": facts(),
            "phases": rows,
            "recovery_seconds": round(recovery, 1),
            "exit_code": code,
            "samples": [sample._asdict() for sample in samples[::5]],
        }
        out.write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
