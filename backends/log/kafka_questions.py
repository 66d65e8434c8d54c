"""What a member of a group asks Kafka beside what it reads.

On connections of its own: a broker answers what comes over one in turn, and a fetch that waits for records to come
would hold up for a quarter of a second whatever is asked behind it.
"""

from collections.abc import Sequence

from kafka import KafkaConsumer

from backends.log.kafka_admin import as_identity
from backends.log.kafka_client import offsets, open_client, translated
from backends.log.protocol import TopicPartition


class Questions:
    """Raises LogUnavailable, from the first question on. Not thread safe."""

    def __init__(self, servers: str, topics: Sequence[str]) -> None:
        with translated():
            self._client = open_client(
                KafkaConsumer, servers, group_id=None, allow_auto_create_topics=False, metrics_enabled=False
            )
            self._cluster = self._client._cluster
            self._cluster.set_topics(topics)
        self._topics = topics

    def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return offsets(self._client.beginning_offsets, partitions)

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return offsets(self._client.end_offsets, partitions)

    def identities(self) -> dict[str, str]:
        """See Consumer. Asks at once; `request_update` waits until a tenth of a second after the last answer."""
        with translated():
            if self._cluster.metadata_refresh_in_progress:  # asked for before, so it may answer with what was
                self._client._net.run(self._cluster.refresh_metadata)
            self._client._net.run(self._cluster.refresh_metadata)
        found = {topic: as_identity(self._cluster.topic_id(topic)) for topic in self._topics}
        return {topic: identity for topic, identity in found.items() if identity is not None}

    def partitions(self) -> dict[str, int]:
        """As of the last `identities`."""
        return {topic: len(self._cluster.partitions_for_topic(topic) or ()) for topic in self._topics}

    def close(self) -> None:
        self._client.close()
