"""What the worker's benchmarks consume: an hour of browsers on tours, in records as edges write them. Seeded.

The bare job has the same events as the full one without who they are of: no session, no user, no anonymous id.
"""

import hashlib
import itertools
import random
import zlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from backends.store.catalog import Flow, Step
from schemas import records

Job = Literal["bare", "full"]
Skew = Literal["zipf", "uniform"]

STEPS = (5, 6, 8)  # of an organisation's flows
BROWSERS = 20  # of an organisation at the same time
HOUR_MS = 3_600_000


class Shape(NamedTuple):
    """A topic's contents."""

    job: Job = "bare"
    events: int = 300_000
    per_record: int = 10
    organisations: int = 200
    partitions: int = 8
    skew: Skew = "zipf"

    @property
    def label(self) -> str:
        many = f"{self.organisations} organisations, {self.partitions} partitions"
        return f"{self.job}, {self.events:,} events, {self.per_record} a record, {many}, {self.skew}"


def catalogue(organisations: int) -> list[list[Flow]]:
    """The published flows of each organisation; the same ones every time."""
    rng = random.Random(organisations)
    return [_flows_of(new_id(rng), rng) for _ in range(organisations)]


def _flows_of(organisation: str, rng: random.Random) -> list[Flow]:
    return [
        Flow(
            organisation,
            new_id(rng),
            f"Flow {number}",
            "tour",
            [Step(new_id(rng), position, f"Step {position}") for position in range(steps)],
            published_at=1,
        )
        for number, steps in enumerate(STEPS)
    ]


def weights(organisations: int, skew: Skew) -> list[float]:
    """How often each organisation is the one that sends: by rank as Zipf has it, or all alike."""
    return [1 / rank if skew == "zipf" else 1.0 for rank in range(1, organisations + 1)]


def partition_of(organisation: str, partitions: int) -> int:
    return zlib.crc32(organisation.encode()) % partitions


def values(shape: Shape, now: int, seed: int = 1) -> Iterator[tuple[int, bytes]]:
    """(partition, record) pairs with exactly `shape.events` events over the hour before `now` (epoch ms)."""
    rng = random.Random(seed)
    flows = catalogue(shape.organisations)
    cumulative = list(itertools.accumulate(weights(shape.organisations, shape.skew)))
    ranks = range(shape.organisations)
    browsers: dict[tuple[int, int], Iterator[dict[str, Any]]] = {}
    made = 0
    while made < shape.events:
        rank = rng.choices(ranks, cum_weights=cumulative)[0]
        which = rank, rng.randrange(BROWSERS)
        if which not in browsers:
            browsers[which] = browser(flows[rank], rng)
        count = min(shape.per_record, shape.events - made)
        received = now - HOUR_MS + HOUR_MS * made // shape.events
        organisation = flows[rank][0].organisation
        events = []
        for number, event in enumerate(itertools.islice(browsers[which], count)):
            if shape.job == "bare":
                event = {name: event[name] for name in ("type", "flow", "step") if name in event}
            events.append(records.RecordEvent(id=new_id(rng), time=received - 10 * (count - number), **event))
        made += count
        envelope = records.Envelope(v=records.VERSION, org=organisation, received=received, events=events)
        yield partition_of(organisation, shape.partitions), records.encode(envelope)


def browser(flows: list[Flow], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Without end: one person after the other takes a tour, step by step; some dismiss it, some walk away."""
    while True:
        user = hashlib.sha256(b"%d" % rng.randrange(5000)).hexdigest()
        flow = rng.choice(flows)
        who = {
            "flow": flow.flow_id,
            "session": f"s-{new_id(rng)}",
            "user": user,
            "anon": f"a-{user[:16]}",
            "url": "https://app.example.com/inbox/settings",
        }
        yield {"type": "view", **who}
        for step in flow.steps:
            yield {"type": "view", "step": step.step_id, **who}
            if rng.random() < 0.1:
                yield {"type": rng.choice(("dismiss", "skip")), "step": step.step_id, **who}
                break
            if rng.random() < 0.05:
                break
            yield {"type": "complete", "step": step.step_id, **who}
        else:
            yield {"type": "complete", **who}


def new_id(rng: random.Random) -> str:
    """A version 4 one, written by hand since millions are wanted."""
    text = f"{rng.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8{text[17:20]}-{text[20:]}"
