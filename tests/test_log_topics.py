"""Topics that are made anew or grow, on both logs: which one a name is, and that new partitions are read."""

import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from backends.log import Consumer, LogError, Record, TopicPartition, UnknownTopic, open_admin, open_consumer
from backends.log import open_producer as producer_of
from tests.topics import make_anew

ENOUGH_SECONDS = 40.0


@pytest.fixture
def topic(log_url: str) -> str:
    name = f"t.{uuid.uuid4().hex}"
    with closing(open_admin(log_url)) as admin:
        admin.create_topic(name, 2, 1)
    return name


def member(log_url: str, *topics: str) -> Consumer:
    def from_the_beginning(partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    return open_consumer(log_url, f"g.{uuid.uuid4().hex}", topics, from_the_beginning, lambda _: None)


def polled(consumer: Consumer, done: Callable[[list[Record]], bool]) -> list[Record]:
    deadline = time.monotonic() + ENOUGH_SECONDS
    found: list[Record] = []
    while not done(found):
        assert time.monotonic() < deadline, "it did not come to that"
        found += consumer.poll(0.1, 100)
        consumer.identities()
    return found


def test_a_topic_keeps_its_identity_and_no_two_have_the_same(log_url: str, topic: str) -> None:
    with closing(open_admin(log_url)) as admin:
        admin.create_topic(topic + "x", 1, 1)
        first = admin.identities()
        assert len({first[topic], first[topic + "x"]} - {"", None}) == 2
    with closing(open_admin(log_url)) as admin:
        assert admin.identities()[topic] == first[topic]


def test_a_topic_made_anew_is_another_and_a_member_sees_it_at_once(log_url: str, topic: str) -> None:
    with closing(member(log_url, topic, "nowhere")) as consumer:
        polled(consumer, lambda _: len(consumer.assignment()) == 2)
        before = consumer.identities()
        assert set(before) == {topic}
        make_anew(log_url, topic, 2)
        after = consumer.identities()
        assert after[topic] != before[topic]
        with closing(open_admin(log_url)) as admin:
            assert admin.identities()[topic] == after[topic]


def test_a_topic_that_grows_keeps_its_records_and_a_member_reads_the_new_partitions_from_the_start(
    log_url: str, topic: str
) -> None:
    producer = producer_of(log_url)
    producer.partitions(topic)
    producer.produce(topic, 1, b"old").result(15)
    with closing(member(log_url, topic)) as consumer:
        assert [r.value for r in polled(consumer, bool)] == [b"old"]
        with closing(open_admin(log_url)) as admin:
            identity = admin.identities()[topic]
            assert admin.add_partitions(topic, 5) is True
            assert admin.add_partitions(topic, 5) is False
            assert admin.topics()[topic] == 5
            assert admin.identities()[topic] == identity
        assert producer.partitions(topic) == 5
        assert producer.produce(topic, 4, b"new").result(15) == 0
        producer.produce(topic, 1, b"after").result(15)
        read = polled(consumer, lambda found: len(found) >= 2)
        assert {(r.partition, r.offset, r.value) for r in read} == {(4, 0, b"new"), (1, 1, b"after")}
        assert len(consumer.assignment()) == 5
    producer.close(5)


def test_no_partition_is_taken_away_and_none_given_to_a_topic_that_is_not_there(log_url: str, topic: str) -> None:
    with closing(open_admin(log_url)) as admin:
        with pytest.raises(LogError, match="has 2 partitions already"):
            admin.add_partitions(topic, 1)
        with pytest.raises(UnknownTopic, match="zenstep topics create"):
            admin.add_partitions("nowhere", 4)
        assert admin.topics()[topic] == 2


def test_a_log_file_of_an_earlier_release_is_given_identities_once(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE topics (topic TEXT PRIMARY KEY, partitions INTEGER NOT NULL) WITHOUT ROWID")
        old.execute("INSERT INTO topics VALUES ('a', 1), ('b', 1)")
        old.commit()
    found = []
    for _ in range(2):
        with closing(open_admin(f"sqlite:///{path}")) as admin:
            found.append(admin.identities())
            assert admin.topics() == {"a": 1, "b": 1}
    assert found[0] == found[1]
    assert len(set(found[0].values())) == 2


def test_brokers_without_topic_ids_tell_none(kafka_servers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    described = KafkaAdminClient.describe_topics

    def without_ids(client: KafkaAdminClient) -> list[dict[str, object]]:
        return [{**topic, "topic_id": uuid.UUID(int=0)} for topic in described(client)]

    monkeypatch.setattr(KafkaAdminClient, "describe_topics", without_ids)
    with closing(open_admin(f"kafka://{kafka_servers}")) as admin:
        assert admin.identities() == {}
