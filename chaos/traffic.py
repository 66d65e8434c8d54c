"""A round's organisations and what their browsers send, drawn from the seed. Pure but for the time that is given."""

import random
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from backends.store.catalog import Flow
from cli.traffic import Request, flows_of, play
from schemas import records
from schemas.records import Envelope, Heartbeat, RecordEvent
from schemas.topics import Topics

ORGANISATIONS = 3
SECOND, DAY = 1000, 86_400_000
SEND_SECONDS = 8.0


class Sending(NamedTuple):
    """One request: when (seconds into the round), whose, where to and what.

    `ids` are those of its events. `skew` (ms) is what the client's clock is wrong by, None where it does not say when
    it sent. `seed` is for its choice of edges and its pauses between tries.
    """

    at: float
    organisation: int
    path: str
    body: dict[str, Any]
    ids: list[str]
    beacon: bool
    skew: int | None
    seed: float


class World(NamedTuple):
    """Organisations by id, each with its flows."""

    organisations: list[str]
    flows: list[list[Flow]]

    def steps(self, organisation: str) -> dict[tuple[str, str], list[str]]:
        """As tests/model.py wants them."""
        theirs = self.flows[self.organisations.index(organisation)]
        return {(flow.organisation, flow.flow_id): [step.step_id for step in flow.steps] for flow in theirs}


def world_of(rng: random.Random) -> World:
    """Organisations that there have not been before, with published flows."""
    organisations = [_uuid(rng) for _ in range(ORGANISATIONS)]
    return World(organisations, [flows_of(organisation, rng) for organisation in organisations])


def sendings(world: World, events: int, now: int, rng: random.Random, seconds: float = SEND_SECONDS) -> list[Sending]:
    """About so many events, spread over so many seconds, in the order they are sent. `now` is epoch ms."""
    requests = list(play(world.flows, events, now, rng))
    found: list[Sending] = []
    firsts: list[Sending] = []
    for number, request in enumerate(requests):
        at = seconds * number / len(requests) + rng.uniform(-0.5, 0.5)  # neighbours overtake each other
        again = number > 0 and request is requests[number - 1]  # a retry has the bytes of its first try
        first = firsts[-1]._replace(seed=rng.random()) if again else _sending(max(0.0, at), request, now, rng)
        firsts.append(first)
        found.append(first)
        if rng.random() < 0.04:  # sent again though it was answered, perhaps to the other edge
            found.append(first._replace(at=first.at + rng.uniform(0.0, 4.0), seed=rng.random()))
        if rng.random() < 0.03:  # a client that packs what it is not sure of into another batch
            other = rng.choice(firsts)
            if other.organisation == first.organisation:
                found.append(_packed(first, other, rng))
        if rng.random() < 0.05:
            found.append(_small(first.at, world, request, rng))
    return sorted(found, key=lambda sending: sending.at)


def poison(topics: Topics, organisations: Sequence[str], now: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Topics and records that no edge writes: not JSON, cut short, of a newer version, of nobody; a good line among
    them, of the kind that its topic has.
    """
    for _ in range(rng.randint(3, 12)):
        topic, organisation = rng.choice(topics.all()), rng.choice(organisations)
        events = [RecordEvent(id=_uuid(rng), type="custom", name="x") for _ in range(2)]
        envelope = Envelope(v=records.VERSION, org=organisation, received=now, events=events)
        beat = Heartbeat(v=records.VERSION, org=organisation, received=now, id=_uuid(rng))
        lines = [records.encode(envelope if topic == topics.events else beat)]
        for _ in range(rng.randint(1, 3)):
            bad = rng.choice(["bytes", "cut", "version", "nobody"])
            if bad == "bytes":
                lines.append(rng.randbytes(rng.randint(1, 200)).replace(b"\n", b"\xff"))
            elif bad == "cut":
                whole = records.encode(beat)
                lines.append(whole[: rng.randrange(1, len(whole))])
            elif bad == "version":
                lines.append(records.encode(msgspec.structs.replace(envelope, v=records.VERSION + 1)))
            else:
                lines.append(records.encode(msgspec.structs.replace(envelope, org=_uuid(rng))))
        rng.shuffle(lines)
        yield topic, b"\n".join(lines)


def _sending(at: float, request: Request, now: int, rng: random.Random) -> Sending:
    events = [dict(event) for event in request.events]
    skew: int | None = None
    clock = rng.random()
    if clock < 0.15:  # a clock that is wrong by up to two days, and says so
        skew = rng.randint(-2 * DAY, 2 * DAY)
        for event in events:
            event["timestamp"] = max(0, event["timestamp"] + skew)
    elif clock < 0.20:  # one that is ahead, and does not
        for event in events:
            event["timestamp"] = now + rng.randint(SECOND, 3 * DAY)
    elif clock < 0.25:
        for event in events:
            del event["timestamp"]
    elif clock < 0.27:
        events[0]["timestamp"] = now - 8 * DAY
    elif clock < 0.30:  # they happened in another order than they are in
        rng.shuffle(events)
    if rng.random() < 0.02:
        events[-1]["flowId"] = _uuid(rng)
        events[-1].pop("stepId", None)
    if rng.random() < 0.02:
        events[-1] = {"eventType": "custom", "id": events[-1]["id"], "name": "opened", "anonymousId": "a-1"}
    ids = [event["id"] for event in events]
    return Sending(at, request.organisation, "/events", {"events": events}, ids, request.beacon, skew, rng.random())


def _packed(first: Sending, other: Sending, rng: random.Random) -> Sending:
    events = [*other.body["events"], *first.body["events"]][:50]
    ids = [event["id"] for event in events]
    return first._replace(at=first.at + 0.5, body={"events": events}, ids=ids, skew=None, seed=rng.random())


def _small(at: float, world: World, request: Request, rng: random.Random) -> Sending:
    """A write of another route, or a body that is refused."""
    flow = rng.choice(world.flows[request.organisation])
    step = rng.choice(flow.steps)
    one = _uuid(rng)
    kinds: list[tuple[str, dict[str, Any], list[str]]] = [
        (f"/flows/{flow.flow_id}/complete", {"id": one, "sessionId": f"s-{_uuid(rng)}", "anonymousId": "a-2"}, [one]),
        (f"/flows/{flow.flow_id}/checklist-progress", {"id": one, "stepId": step.step_id, "userId": "ada"}, [one]),
        (f"/steps/{step.step_id}/health", {"id": one, "found": rng.random() < 0.9}, [one]),
        ("/heartbeat", {}, []),
        ("/events", {"events": [{"eventType": "viewed"}]}, []),
    ]
    path, body, ids = rng.choice(kinds)
    return Sending(at, request.organisation, path, body, ids, False, None, rng.random())


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
