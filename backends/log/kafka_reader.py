"""Reads ranges of Kafka topics, in no group."""

import time
from collections.abc import Sequence

import kafka
from kafka import KafkaConsumer
from kafka import errors as kafka_errors

from backends.log.kafka_admin import KafkaLogAdmin
from backends.log.kafka_client import offsets, open_client, translated
from backends.log.kafka_records import read_records
from backends.log.protocol import LogUnavailable, OffsetOutOfRange, Record, TopicPartition, UnknownTopic

READ_SECONDS = 10.0
POLL_MS = 500


class KafkaLogReader:
    """See Reader. Raises LogUnavailable where Kafka does not answer at once."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        with translated():
            self._client = open_client(
                KafkaConsumer,
                servers,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                fetch_max_wait_ms=100,
                metrics_enabled=False,
            )
            read_records(self._client)
        self._at: tuple[TopicPartition, int] | None = None  # where the next record comes from

    def partitions(self, topic: str) -> int:
        admin = KafkaLogAdmin(self._servers)
        try:
            count = admin.topics().get(topic)
        finally:
            admin.close()
        if count is None:
            raise UnknownTopic(f"there is no topic {topic}: run zenstep topics create")
        return count

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return offsets(self._client.beginning_offsets, partitions)

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return offsets(self._client.end_offsets, partitions)

    def offset_at(self, partition: TopicPartition, epoch_ms: int) -> int:
        asked = kafka.TopicPartition(*partition)
        with translated():
            found = self._client.offsets_for_times({asked: max(0, epoch_ms)}).get(asked)
        return int(found.offset) if found is not None else self.end_offsets([partition])[partition]

    def read(self, partition: TopicPartition, offset: int, max_records: int) -> list[Record]:
        self._go_to(partition, offset)
        deadline = time.monotonic() + READ_SECONDS
        while True:
            with translated():
                try:
                    polled = self._client.poll(timeout_ms=POLL_MS, max_records=max_records)
                except kafka_errors.OffsetOutOfRangeError as error:
                    self._at = None
                    raise OffsetOutOfRange(
                        f"{partition.topic}[{partition.partition}] has no offset {offset}"
                    ) from error
            records: list[Record] = polled.get(kafka.TopicPartition(*partition), [])
            if records:
                self._at = (partition, records[-1].offset + 1)
                return records
            # What was answered before the offset was found out of range looks the same as the end.
            if offset == self.end_offsets([partition])[partition]:
                return []
            if time.monotonic() > deadline:
                self._at = None
                raise LogUnavailable(f"no records of {partition.topic}[{partition.partition}] in time")

    def kept_ms(self, topic: str) -> int | None:
        """A segment goes once its newest record is older than the retention, so its oldest stays a segment longer."""
        self.partitions(topic)
        admin = KafkaLogAdmin(self._servers)
        try:
            config = admin.config(topic, "cleanup.policy", "retention.ms", "segment.ms")
        finally:
            admin.close()
        retention = int(config["retention.ms"])
        if retention < 0 or "delete" not in config["cleanup.policy"]:
            return None
        return retention + int(config["segment.ms"])

    def close(self) -> None:
        self._client.close()

    def _go_to(self, partition: TopicPartition, offset: int) -> None:
        if self._at == (partition, offset):
            return
        asked = kafka.TopicPartition(*partition)
        with translated():
            if self._at is None or self._at[0] != partition:
                self._client.assign([asked])
            self._client.seek(asked, offset)
        self._at = (partition, offset)
