"""Topics with random traffic that is counted as workers count it, rebuilds of them, and what of a store is compared."""

import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeVar

import sqlalchemy as sa

from backends.log import TopicPartition, open_admin, open_producer, open_reader
from backends.store import statements
from backends.store.catalog import Flow
from backends.store.compare import Difference
from backends.store.counting import Counting
from backends.store.engine import open_engine
from backends.store.rebuild import open_beside
from schemas import records
from schemas import tables as t
from schemas.ids import partition_of
from tests.snapshot import snapshot
from tests.worlds import NOW, envelope, event, make_flows
from workers.batch import Batches
from workers.rebuild import Progress, Rebuild

PARTITIONS = 3
DAY = 86_400_000

R = TypeVar("R")
Store = dict[str, list[dict[str, Any]]]


def numbers(engine: sa.Engine) -> Store:
    """A snapshot without what depends on where batches ended: cells back at zero, and times to complete."""
    store = snapshot(engine)
    for table in t.CELLS:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in store[str(table.name)]]
        numbers_of = (*statements.counters(table), "users")
        store[str(table.name)] = [row for row in rows if any(row.get(name) for name in numbers_of)]
    store["sessions"] = [{k: v for k, v in row.items() if k != "timed"} for row in store["sessions"]]
    return store


class Traffic:
    """Three organisations' events of a week on a topic of its own, with duplicates, poison and late ones among them."""

    def __init__(self, store_url: str, log_url: str, seed: int = 1) -> None:
        self.store_url = store_url
        self.log_url = log_url
        self.engine = open_engine(store_url)
        self.topic = f"b.{uuid.uuid4().hex}"
        with closing(open_admin(log_url)) as admin:
            admin.create_topic(self.topic, PARTITIONS, 1)
        self.producer = open_producer(log_url)
        self.producer.partitions(self.topic)
        self.flows: list[Flow] = [flow for _ in range(3) for flow in make_flows(self.engine, [3])[1]]
        self._random = random.Random(seed)
        self._sent: list[tuple[Flow, bytes]] = []
        self.events = 0

    def send(self, requests: int = 60, each: int = 3) -> None:
        """That many records; some are sent a second time, some are no line at all."""
        written = []
        for _ in range(requests):
            flow = self._random.choice(self.flows)
            line = records.encode(envelope(flow.organisation, *(self._event(flow) for _ in range(each))))
            if self._sent and self._random.random() < 0.1:
                flow, line = self._random.choice(self._sent)
            self._sent.append((flow, line))
            self.events += each
            if self._random.random() < 0.05:
                line += b"\npoison \x00"
                self.events += 1
            written.append(self.producer.produce(self.topic, partition_of(flow.organisation, PARTITIONS), line))
        for done in written:
            done.result(20)

    def count(self) -> None:
        """Counts all that was sent, as workers would."""
        with closing(open_reader(self.log_url)) as reader:
            partitions = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
            stored = Counting(self.engine).offsets(reader.beginning_offsets(partitions))
            batches = Batches(self.engine)
            for tp in partitions:
                at = {tp: stored[tp]}
                while read := reader.read(tp, at[tp], 20):
                    at = batches.apply(read, at)

    def rebuild(self, batch_records: int = 25, **options: Any) -> Progress:
        """Rebuilds and swaps in this process."""
        return self.run(lambda rebuild: rebuild.swap(), batch_records, **options)

    def compare(self, **options: Any) -> dict[str, Difference]:
        return {found.table: found for found in self.run(lambda rebuild: rebuild.compare(), **options)}

    def run(self, work: Callable[[Rebuild], R], batch_records: int = 25, **options: Any) -> R:
        with closing(open_beside(self.store_url)) as beside, closing(open_reader(self.log_url)) as reader:
            return work(Rebuild(beside, reader, batch_records, **options))

    def numbers(self) -> Store:
        return numbers(self.engine)

    def ledger(self) -> dict[str, int]:
        return Counting(self.engine).ledger()

    def execute(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))

    def rows(self, query: str) -> Sequence[Any]:
        with self.engine.begin() as connection:
            return connection.execute(sa.text(query)).all()

    def close(self) -> None:
        self.producer.close(5)
        self.engine.dispose()

    def _event(self, flow: Flow) -> records.RecordEvent:
        draw = self._random
        kind = draw.choice(["view", "view", "complete", "skip", "dismiss", "custom"])
        step = draw.choice([None, *(step.step_id for step in flow.steps)])
        fields: dict[str, Any] = {"flow": flow.flow_id, "session": f"s{draw.randrange(30)}", "step": step}
        if kind == "custom":
            fields["name"] = f"name {draw.randrange(5)}"
        if draw.random() < 0.05:
            fields["flow"] = str(uuid.UUID(int=draw.getrandbits(128)))
        return event(kind, user=f"{draw.randrange(40):064x}", time=NOW - draw.randrange(8 * DAY), **fields)
