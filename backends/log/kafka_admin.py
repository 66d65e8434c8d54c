"""Topics of Kafka: made, described, grown, and told apart from others of the same name."""

import time
import uuid
from collections.abc import Collection

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from backends.log.kafka_appender import Cluster
from backends.log.kafka_client import open_client, translated
from backends.log.protocol import LogError, LogUnavailable, UnknownTopic

GROW_SECONDS = 10.0


def as_identity(topic_id: object) -> str | None:
    """A topic's id as text; None of a broker before 2.8, whose topics have none."""
    return str(topic_id) if topic_id and str(topic_id) != str(uuid.UUID(int=0)) else None


class KafkaLogAdmin:
    """Makes and describes topics."""

    def __init__(self, servers: str) -> None:
        with translated():
            self._client = open_client(KafkaAdminClient, servers)

    def create_topic(self, topic: str, partitions: int, replication: int) -> bool:
        """See Admin. The broker stamps records as it appends them, so that their times never fall."""
        new = {
            topic: {
                "num_partitions": partitions,
                "replication_factor": replication,
                "configs": {"message.timestamp.type": "LogAppendTime"},
            }
        }
        with translated():
            try:
                self._client.create_topics(new, wait_for_metadata=True)
            except kafka_errors.TopicAlreadyExistsError:
                return False
        return True

    def topics(self) -> dict[str, int]:
        with translated():
            return {t["name"]: len(t["partitions"]) for t in self._client.describe_topics()}

    def identities(self) -> dict[str, str]:
        with translated():
            found = ((t["name"], t.get("topic_id")) for t in self._client.describe_topics())
            return {name: identity for name, given in found if (identity := as_identity(given)) is not None}

    def cluster(self, topics: Collection[str]) -> Cluster:
        """Who leads the partitions of these topics, as far as somebody does."""
        with translated():
            # Both in one answer; `describe_cluster` would want the right to describe the cluster.
            found = self._client._manager.run(self._client._get_cluster_metadata, list(topics))
        leaders = {
            (topic["name"], partition["partition_index"]): partition["leader_id"]
            for topic in found["topics"]
            for partition in topic["partitions"]
        }
        return Cluster(leaders, {broker["node_id"]: (broker["host"], broker["port"]) for broker in found["brokers"]})

    def add_partitions(self, topic: str, total: int) -> bool:
        has = self.topics().get(topic)
        if has is None:
            raise UnknownTopic(f"there is no topic {topic}: run zenstep topics create")
        if has > total:
            raise LogError(f"{topic} has {has} partitions already, and none can be taken away")
        if has == total:
            return False
        with translated():
            self._client.create_partitions({topic: total})
        deadline = time.monotonic() + GROW_SECONDS
        while self.topics().get(topic, 0) < total:
            if time.monotonic() > deadline:
                raise LogUnavailable(f"{topic} does not show its new partitions")
            time.sleep(0.05)
        return True

    def config(self, topic: str, *names: str) -> dict[str, str]:
        """These settings of the topic, its own or the broker's."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=list(names))
        with translated():
            described = self._client.describe_configs([resource], config_filter="all")
        return {name: str(described["topic"][topic][name]["value"]) for name in names}

    def max_message_bytes(self, topic: str) -> int:
        """The topic's own `max.message.bytes`."""
        return int(self.config(topic, "max.message.bytes")["max.message.bytes"])

    def close(self) -> None:
        self._client.close()
