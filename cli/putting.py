"""Puts lines into a topic again, as edges do: by organisation, and not without the log's acknowledgement."""

from collections.abc import Sequence
from typing import NamedTuple

from backends.log import LogError, LogUnavailable, Producer, RecordTooLarge
from ingest.grouping import grouped
from schemas.ids import partition_of

CHUNK_BYTES = 8 * 1024 * 1024
"""What is to be put at once at most, well below what a producer buffers."""
RECORD_BYTES = 256 * 1024
ANSWER_SECONDS = 60.0


class Routed(NamedTuple):
    """A line and the partition that it goes to."""

    partition: int
    line: bytes


class Target:
    """A topic of a log. Raises UnknownTopic, LogUnavailable."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self.topic = topic
        self._producer = producer
        self._partitions = producer.partitions(topic)
        self._most = producer.max_record_bytes(topic)

    def route(self, organisation: str, line: bytes) -> Routed:
        return Routed(partition_of(organisation.lower(), self._partitions), line)

    def put(self, lines: Sequence[Routed]) -> list[LogError | None]:
        """Waits for all of them. By line: None once the log has acknowledged it, RecordTooLarge, or LogUnavailable
        where it is not known to be there. Lines of one partition stay in order and share records.
        """
        outcomes: list[LogError | None] = [None] * len(lines)
        partitions: dict[int, list[int]] = {}
        for number, routed in enumerate(lines):
            if len(routed.line) > self._most:
                outcomes[number] = RecordTooLarge(f"a line of {len(routed.line)} bytes is too large for {self.topic}")
            else:
                partitions.setdefault(routed.partition, []).append(number)
        sent = [
            (group, self._producer.produce(self.topic, partition, b"\n".join(lines[number].line for number in group)))
            for partition, numbers in partitions.items()
            for group in grouped(numbers, lambda number: len(lines[number].line), min(self._most, RECORD_BYTES))
        ]
        for group, answer in sent:
            try:
                answer.result(ANSWER_SECONDS)
            except LogError as error:
                outcomes = _with(outcomes, group, error)
            except TimeoutError:
                outcomes = _with(outcomes, group, LogUnavailable("no acknowledgement in time"))
        return outcomes


def _with(outcomes: list[LogError | None], group: Sequence[int], error: LogError) -> list[LogError | None]:
    for number in group:
        outcomes[number] = error
    return outcomes
