"""Reads the topics from the log itself, with a consumer that belongs to no group and to no code of the product."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition

POLL_MS = 500
TIMEOUT_MS = 10_000

Offsets = Mapping[tuple[str, int], int]


class Record(NamedTuple):
    """One record, with where it stands."""

    topic: str
    partition: int
    value: bytes


class Topics:
    """Each record is read once."""

    def __init__(self, servers: str, topics: Sequence[str], partitions: int) -> None:
        self._servers = servers
        self._positions = {TopicPartition(topic, n): 0 for topic in topics for n in range(partitions)}

    def ends(self) -> Offsets:
        """Where the next record of each partition will stand."""
        consumer = self._consumer()
        try:
            found = consumer.end_offsets(list(self._positions))
        finally:
            consumer.close()
        return {(tp.topic, tp.partition): offset for tp, offset in found.items()}

    def read_to(self, ends: Offsets) -> Iterator[Record]:
        """From where the last call ended up to there."""
        consumer = self._consumer()
        try:
            consumer.assign(list(self._positions))
            for tp, position in self._positions.items():
                consumer.seek(tp, position)
            while self._missing(ends):
                for tp, records in consumer.poll(timeout_ms=POLL_MS).items():
                    for record in records:
                        if record.offset < ends[tp.topic, tp.partition]:
                            self._positions[tp] = record.offset + 1
                            yield Record(record.topic, record.partition, record.value)
        finally:
            consumer.close()

    def _missing(self, ends: Offsets) -> bool:
        return any(position < ends[tp.topic, tp.partition] for tp, position in self._positions.items())

    def _consumer(self) -> KafkaConsumer:
        return KafkaConsumer(
            bootstrap_servers=self._servers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            request_timeout_ms=TIMEOUT_MS,
            metrics_enabled=False,
        )
