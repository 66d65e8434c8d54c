"""Made-up but realistic traffic: sessions that see a flow, go from step to step, drop off, come back. Seeded."""

import random
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from backends.store.catalog import Flow, Step


class Request(NamedTuple):
    """One POST of a browser: whose, what, and whether it left as a beacon (`?key=`, text/plain)."""

    organisation: int
    events: list[dict[str, Any]]
    beacon: bool


STORIES = [
    ("Welcome tour", "tour", ["Welcome", "Find your inbox", "Invite a colleague", "Pick a plan", "Done"]),
    (
        "Set up your project",
        "checklist",
        ["Name it", "Choose a template", "Import data", "Connect the API", "Add a domain", "Go live"],
    ),
    (
        "Dashboards explained",
        "tour",
        ["Open", "Add a chart", "Filter", "Compare", "Share", "Schedule", "Export", "Finish"],
    ),
]


def flows_of(organisation: str, rng: random.Random) -> list[Flow]:
    """Three flows of 5, 6 and 8 steps, published."""
    return [
        Flow(
            organisation,
            _uuid(rng),
            name,
            kind,
            [Step(_uuid(rng), position, step) for position, step in enumerate(steps)],
            published_at=1,
        )
        for name, kind, steps in STORIES
    ]


def play(flows: list[list[Flow]], events: int, now: int, rng: random.Random, days: float = 6.0) -> Iterator[Request]:
    """Requests of at least that many events in all, over the last `days` before `now` (epoch ms).

    About one request in a hundred is sent twice, as a browser does that saw no answer, and a few events name a flow of
    another organisation: they are accepted and then not counted.
    """
    sent = 0
    while sent < events:
        organisation = rng.choices(range(len(flows)), weights=range(len(flows), 0, -1))[0]
        start = now - int(rng.random() * days * 86_400_000) - 3_600_000
        for request in _session(organisation, flows, start, rng):
            sent += len(request.events)
            yield request
            if rng.random() < 0.01:
                sent += len(request.events)
                yield request


def _session(organisation: int, flows: list[list[Flow]], start: int, rng: random.Random) -> Iterator[Request]:
    flow = rng.choice(flows[organisation])
    who: dict[str, Any] = {"sessionId": f"s-{_uuid(rng)}", "anonymousId": f"a-{rng.randrange(4000)}"}
    if rng.random() < 0.7:
        who["userId"] = f"user-{rng.randrange(1200)}@example.com"
    clock = start
    pending: list[dict[str, Any]] = []

    def event(kind: str, step: Step | None = None, **more: Any) -> None:
        nonlocal clock
        clock += rng.randrange(1_500, 25_000)
        made = {"eventType": kind, "id": _uuid(rng), "flowId": flow.flow_id, "timestamp": clock, **who, **more}
        made["url"] = "https://app.example.com/inbox?token=never-kept#top"
        if step is not None:
            made["stepId"] = step.step_id
        pending.append(made)

    def flush(leaving: bool = False) -> Iterator[Request]:
        if pending:
            yield Request(organisation, list(pending), beacon=leaving or rng.random() < 0.3)
            pending.clear()

    event("view")
    for step in flow.steps:
        event("view", step)
        if rng.random() < 0.13:
            event("dismiss" if rng.random() < 0.6 else "skip", step)
            yield from flush(leaving=True)
            return
        if rng.random() < 0.06:
            yield from flush(leaving=True)  # the tab is closed
            return
        event("complete", step)
        if rng.random() < 0.1:
            event("custom", None, name=rng.choice(["chart_added", "invited", "upgraded"]), data={"plan": "team"})
        if rng.random() < 0.25:
            yield from flush()
    event("complete")
    if rng.random() < 0.01 and len(flows) > 1:
        foreign = rng.choice(flows[(organisation + 1) % len(flows)])
        pending[-1] = pending[-1] | {"flowId": foreign.flow_id, "id": _uuid(rng)}
    yield from flush(leaving=True)


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
