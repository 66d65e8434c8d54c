"""Organisations, flows and traffic for tests that drive the worker's batches directly, and the numbers read back."""

import itertools
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from backends.log import Record, TopicPartition
from backends.store.catalog import Catalog, Flow, Step
from backends.store.counting import Counting
from backends.store.queries import Queries
from readers import ranges
from readers.app import Reader
from schemas import records
from schemas.records import Envelope, RecordEvent
from workers.batch import Batches

NOW = int(datetime(2026, 3, 30, 12, tzinfo=UTC).timestamp() * 1000)  # the day after Europe's clocks went forward
_numbers = itertools.count(1)


def new_id() -> str:
    return str(uuid.UUID(int=next(_numbers) << 64 | uuid.uuid4().int & (1 << 62) - 1 | 1 << 63))


def make_flows(engine: sa.Engine, steps: Sequence[int], organisation: str | None = None) -> tuple[str, list[Flow]]:
    """A new organisation with published flows of so many steps each."""
    catalog = Catalog(engine)
    owner = catalog.create_organisation("Test", organisation)
    flows = [
        Flow(owner, new_id(), f"Flow {n}", "tour", [Step(new_id(), p, f"Step {p}") for p in range(count)], 1)
        for n, count in enumerate(steps)
    ]
    for flow in flows:
        catalog.import_flow(flow)
    return owner, flows


def steps_of(flows: Sequence[Flow]) -> dict[tuple[str, str], list[str]]:
    """As tests/model.py wants them."""
    return {(flow.organisation, flow.flow_id): [step.step_id for step in flow.steps] for flow in flows}


def event(kind: str = "view", **fields: Any) -> RecordEvent:
    return RecordEvent(**({"id": new_id(), "type": kind} | fields))


def envelope(organisation: str, *events: RecordEvent, received: int = NOW, sent: int | None = None) -> Envelope:
    return Envelope(v=records.VERSION, org=organisation, received=received, sent=sent, events=list(events))


class Partitions:
    """A log in memory that hands out offsets, for tests of what is done with records rather than of logs."""

    def __init__(self, topic: str | None = None) -> None:
        self.topic = topic or f"t.{uuid.uuid4().hex}"
        self._ends: dict[int, int] = {}

    def record(self, *lines: Envelope | records.Heartbeat | bytes, partition: int = 0, timestamp: int = NOW) -> Record:
        offset = self._ends.get(partition, 0)
        self._ends[partition] = offset + 1
        value = b"\n".join(line if isinstance(line, bytes) else records.encode(line) for line in lines)
        return Record(self.topic, partition, offset, timestamp, value)


def stored_offsets(engine: sa.Engine, batch: Sequence[Record]) -> dict[TopicPartition, int]:
    """Where the store has these records' partitions."""
    partitions = {TopicPartition(r.topic, r.partition): 0 for r in batch}
    found = Counting(engine).offsets(partitions)
    return {tp: found[tp] for tp in partitions}


def apply(engine: sa.Engine, *batch: Record, batches: Batches | None = None) -> dict[TopicPartition, int]:
    """Counts one batch as a worker would that has just been given its partitions."""
    return (batches or Batches(engine)).apply(batch, stored_offsets(engine, batch))


def analytics(engine: sa.Engine, flow: Flow, chosen: ranges.Range, topic: str = "none") -> dict[str, Any]:
    """The document of GET /flows/{id}/analytics."""
    with ThreadPoolExecutor(1) as threads:
        reader = Reader(Catalog(engine), Queries(engine), verifier=None, topic=topic, threads=threads)  # type: ignore[arg-type]
        return reader._document(flow, chosen)


def chosen_range(start: int, end: int, interval: str = "day", zone: str = "UTC") -> ranges.Range:
    """[start, end) in epoch ms."""
    since, until = (datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in (start, end))
    return ranges.parse(since, until, interval, zone, datetime.fromtimestamp(NOW / 1000, UTC))


def modelled(document: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of the document that the model computes."""
    totals = {k: v for k, v in document["totals"].items() if k != "medianSecondsToComplete"}
    steps = [{k: v for k, v in step.items() if k not in ("position", "name")} for step in document["steps"]]
    return {"totals": totals, "steps": steps, "series": document["series"], "customEvents": document["customEvents"]}


def zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
