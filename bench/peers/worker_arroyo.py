"""sentry-arroyo: a batching step, a task that writes, and the commit of offsets behind it."""

from collections.abc import Mapping

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, build_kafka_consumer_configuration
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import (
    BatchStep,
    CommitOffsets,
    ProcessingStrategy,
    ProcessingStrategyFactory,
    RunTask,
)
from arroyo.processing.strategies.batching import ValuesBatch
from arroyo.types import Commit, Message, Partition, Topic
from worker_store import Store, arguments

FULL_SECONDS = 0.5


class Factory(ProcessingStrategyFactory[KafkaPayload]):
    def __init__(self, store: Store, records: int) -> None:
        self._store = store
        self._records = records

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return BatchStep(self._records, FULL_SECONDS, RunTask(self._write, CommitOffsets(commit)))

    def _write(self, message: Message[ValuesBatch[KafkaPayload]]) -> None:
        self._store.count(value.payload.value for value in message.payload)


def main() -> None:
    given = arguments()
    configuration = build_kafka_consumer_configuration(
        {}, bootstrap_servers=[given.servers], group_id=given.group, auto_offset_reset="earliest"
    )
    factory = Factory(Store(given.database), given.records)
    StreamProcessor(KafkaConsumer(configuration), Topic(given.topic), factory).run()


main()
