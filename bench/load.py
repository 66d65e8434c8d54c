"""The load as a process of its own: `python -m bench.load KEYS`. A JSON line in is a run; its result is a line out.

KEYS is a JSON file with a list of snippet keys. It stays small beside the server: under 15 us of CPU a request.
"""

import gc
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench.bodies import Kind, Requests
from bench.load_connection import Unexpected
from bench.load_runs import Closed, Open, Run

FEW, MANY = 512, 4096  # different bodies: large ones would fill the processor's caches, and not the server's


class Order(NamedTuple):
    """A run as it is asked for. Without a rate, as fast as the server answers."""

    ports: list[int]
    organisations: int
    events: int
    gzip: bool
    connections: int
    seconds: float
    rate: float | None = None
    seed: int = 1


class Result(NamedTuple):
    """`error` is what was answered instead of 202. Latencies in milliseconds; `driver_us` is CPU of the load itself."""

    error: str = ""
    requests: int = 0
    seconds: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    most: float = 0.0
    driver_us: float = 0.0


def quantile(ordered: list[float], q: float) -> float:
    """The smallest value that is not below a share `q` of them. 0 of none."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def result(run: Run, cpu: float) -> Result:
    ordered = sorted(run.latencies)
    p50, p95, p99 = (quantile(ordered, q) * 1000 for q in (0.5, 0.95, 0.99))
    most = ordered[-1] * 1000 if ordered else 0.0
    return Result("", len(ordered), run.seconds, p50, p95, p99, most, cpu / max(1, len(ordered)) * 1e6)


async def perform(order: Order, requests: Requests) -> Result:
    run = Closed(requests) if order.rate is None else Open(requests, order.rate, order.seed)
    before = time.process_time()
    try:
        await run.run(order.ports, order.connections, order.seconds)
    except (Unexpected, OSError) as error:
        return Result(error=str(error) or type(error).__name__)
    return result(run, time.process_time() - before)


def main() -> None:
    keys: list[str] = json.loads(Path(sys.argv[1]).read_text())
    made: dict[tuple[int, Kind], Requests] = {}
    _say("ready")
    for line in sys.stdin:
        order = Order(**json.loads(line))
        which = order.organisations, Kind(order.events, order.gzip)
        if which not in made:
            made[which] = Requests(keys[: order.organisations], which[1], MANY if order.events < 10 else FEW)
            gc.freeze()
        _say(json.dumps(uvloop.run(perform(order, made[which]))._asdict()))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
