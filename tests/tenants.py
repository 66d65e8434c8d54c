"""Traffic of several organisations over all partitions of a topic, and whether each event of it was counted once."""

import sqlalchemy as sa

from backends.log import Producer
from backends.store.catalog import Flow
from backends.store.counting import Counting
from schemas import records
from schemas.ids import partition_of
from tests.worlds import NOW, analytics, chosen_range, envelope, event, make_flows

PARTITIONS = 4
DAY = 86_400_000


class Tenants:
    """Organisations, enough for all partitions, and how many views each was sent."""

    def __init__(self, engine: sa.Engine, producer: Producer, topic: str, number: int = 8) -> None:
        self._engine = engine
        self.producer = producer
        self._topic = topic
        self.flows: list[Flow] = [make_flows(engine, [1])[1][0] for _ in range(number)]
        self.sent = 0
        self.partitions = PARTITIONS

    def send(self, each: int = 5) -> None:
        """That many views of every organisation's flow, a record each."""
        written = [
            self.producer.produce(
                self._topic,
                partition_of(flow.organisation, self.partitions),
                records.encode(envelope(flow.organisation, event(flow=flow.flow_id))),
            )
            for _ in range(each)
            for flow in self.flows
        ]
        for done in written:
            done.result(20)
        self.sent += each

    def consumed(self) -> int:
        return Counting(self._engine).ledger().get("consumed", 0)

    def counted(self) -> bool:
        return self.consumed() == self.sent * len(self.flows)

    def check(self) -> None:
        """Every view is counted, each once."""
        total = self.sent * len(self.flows)
        assert Counting(self._engine).ledger() == {"consumed": total, "counted": total}
        start = NOW // DAY * DAY
        views = [analytics(self._engine, f, chosen_range(start, start + DAY))["totals"]["views"] for f in self.flows]
        assert views == [self.sent] * len(self.flows)
