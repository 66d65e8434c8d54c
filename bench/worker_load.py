"""Browsers for the worker's benchmarks: requests of so many events to a real edge, as fast as it answers or at a rate.

As a program it is a process of its own beside what is measured: `python -m bench.worker_load PLAN`, one JSON object.
"""

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from backends.store.catalog import Flow
from bench.worker_events import BROWSERS, browser, catalogue, new_id

PATH = "/api/v1/events"
NAMES = {"type": "eventType", "flow": "flowId", "step": "stepId", "session": "sessionId", "user": "userId"}
NAMES |= {"anon": "anonymousId", "url": "url"}


class Plan(NamedTuple):
    """Whom to send what. `rate` is requests a second over all connections, 0 as many as are answered."""

    port: int
    keys: list[str]
    organisations: int
    per_request: int
    connections: int
    rate: float
    seconds: float = 0.0
    requests: int = 0  # where it is a number to be sent, and not a time


class Sent(NamedTuple):
    events: int
    seconds: float


def requests(flows: list[list[Flow]], keys: list[str], per_request: int, seed: int = 1) -> Iterator[bytes]:
    """Without end, each the next events of one of an organisation's browsers. A key for each organisation."""
    rng = random.Random(seed)
    browsers = [[browser(theirs, rng) for _ in range(BROWSERS)] for theirs in flows]
    while True:
        rank = rng.randrange(len(keys))
        events = itertools.islice(rng.choice(browsers[rank]), per_request)
        yield request(keys[rank], [event(made, rng) for made in events])


def event(made: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """As the snippet sends it."""
    named = {NAMES[name]: value for name, value in made.items()}
    return {"id": new_id(rng), "timestamp": time.time_ns() // 1_000_000, **named}


def request(key: str, events: list[dict[str, Any]]) -> bytes:
    body = orjson.dumps({"events": events})
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def send(plan: Plan, made: Iterator[bytes] | None = None) -> Sent:
    """Raises RuntimeError where an answer is not 202."""
    seed = time.time_ns()  # ids of an earlier load would be duplicates
    source = made or requests(catalogue(plan.organisations), plan.keys, plan.per_request, seed)
    if plan.requests:
        source = itertools.islice(source, plan.requests)
    begun = time.monotonic()
    counts = await asyncio.gather(*(_client(plan, source, number, begun) for number in range(plan.connections)))
    return Sent(sum(counts) * plan.per_request, time.monotonic() - begun)


async def _client(plan: Plan, source: Iterator[bytes], number: int, begun: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", plan.port)
    pause = plan.connections / plan.rate if plan.rate else 0.0
    due = begun + pause * number / plan.connections
    answered = 0
    for content in source:
        if plan.seconds and time.monotonic() - begun > plan.seconds:
            break
        if pause:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += pause  # late ones catch up: the rate is the browsers'
        writer.write(content)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(head.decode(errors="replace"))
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(length)
        answered += 1
    writer.close()
    return answered


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(send(Plan(**json.loads(sys.argv[1]))))._asdict()) + "\n")
