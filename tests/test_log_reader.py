"""Reading a range of a log without joining a group: one suite, run on SQLite and on Kafka."""

import time
import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from backends.log import (
    LogUnavailable,
    OffsetOutOfRange,
    Producer,
    Reader,
    TopicPartition,
    UnknownTopic,
    open_admin,
    open_producer,
    open_reader,
)
from tests.patience import impatience
from tests.servers.kafka import Kafka

PARTITIONS = 3


@pytest.fixture
def topic(log_url: str) -> str:
    name = f"t.{uuid.uuid4().hex}"
    with closing(open_admin(log_url)) as admin:
        admin.create_topic(name, PARTITIONS, 1)
    return name


@pytest.fixture
def producer(log_url: str, topic: str) -> Iterator[Producer]:
    opened = open_producer(log_url)
    opened.partitions(topic)
    yield opened
    opened.close(5)


@pytest.fixture
def reader(log_url: str) -> Iterator[Reader]:
    with closing(open_reader(log_url)) as opened:
        yield opened


def produce(producer: Producer, topic: str, partition: int, *values: bytes) -> None:
    for done in [producer.produce(topic, partition, value) for value in values]:
        done.result(15)


def values(reader: Reader, tp: TopicPartition, offset: int, many: int) -> list[bytes]:
    return [record.value for record in reader.read(tp, offset, many)]


def test_a_range_comes_in_order_and_ends_with_nothing(reader: Reader, producer: Producer, topic: str) -> None:
    tp = TopicPartition(topic, 1)
    produce(producer, topic, 1, *(b"%d" % n for n in range(10)))
    first = reader.read(tp, 2, 3)
    assert [(r.topic, r.partition, r.offset, r.value) for r in first] == [(topic, 1, n, b"%d" % n) for n in (2, 3, 4)]
    assert values(reader, tp, 5, 100) == [b"5", b"6", b"7", b"8", b"9"]
    assert reader.read(tp, 10, 100) == []
    assert values(reader, tp, 0, 2) == [b"0", b"1"], "any range may be read again"


def test_what_is_appended_after_the_end_was_read_is_read_next(reader: Reader, producer: Producer, topic: str) -> None:
    tp = TopicPartition(topic, 0)
    assert reader.read(tp, 0, 10) == []
    produce(producer, topic, 0, b"a")
    assert values(reader, tp, 0, 10) == [b"a"]
    produce(producer, topic, 0, b"b")
    assert values(reader, tp, 1, 10) == [b"b"]


def test_partitions_may_be_read_in_turns(reader: Reader, producer: Producer, topic: str) -> None:
    for partition in range(PARTITIONS):
        produce(producer, topic, partition, *(b"%d-%d" % (partition, n) for n in range(4)))
    read = []
    for start in (0, 2):
        for partition in range(PARTITIONS):
            read += values(reader, TopicPartition(topic, partition), start, 2)
    assert read == [b"%d-%d" % (p, n) for ns in ((0, 1), (2, 3)) for p in range(PARTITIONS) for n in ns]


def test_an_offset_that_is_not_there_is_said_and_reading_goes_on(
    reader: Reader, producer: Producer, topic: str
) -> None:
    tp = TopicPartition(topic, 0)
    produce(producer, topic, 0, b"a")
    with pytest.raises(OffsetOutOfRange, match="50"):
        reader.read(tp, 50, 10)
    assert values(reader, tp, 0, 10) == [b"a"]


def test_partitions_and_their_bounds(reader: Reader, producer: Producer, topic: str) -> None:
    produce(producer, topic, 2, b"a", b"b")
    tps = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    assert reader.partitions(topic) == PARTITIONS
    assert reader.beginning_offsets(tps) == dict.fromkeys(tps, 0)
    assert [reader.end_offsets(tps)[tp] for tp in tps] == [0, 0, 2]
    with pytest.raises(UnknownTopic, match="nowhere"):
        reader.partitions("nowhere")


def test_the_offset_of_a_time_is_that_of_the_first_record_from_then_on(
    reader: Reader, producer: Producer, topic: str
) -> None:
    tp = TopicPartition(topic, 0)
    before = time.time_ns() // 1_000_000
    produce(producer, topic, 0, b"a")
    [first] = reader.read(tp, 0, 10)
    while time.time_ns() // 1_000_000 <= first.timestamp:
        pass
    produce(producer, topic, 0, b"b", b"c")
    assert reader.offset_at(tp, before - 60_000) == 0
    assert reader.offset_at(tp, first.timestamp) == 0
    assert reader.offset_at(tp, first.timestamp + 1) == 1
    assert reader.offset_at(tp, time.time_ns() // 1_000_000 + 60_000) == 3, "the end"
    assert reader.offset_at(TopicPartition(topic, 1), 0) == 0, "of an empty partition"


def test_how_long_records_stay(log_url: str, reader: Reader, topic: str) -> None:
    kept = reader.kept_ms(topic)
    day = 86_400_000
    assert kept == (7 * day + 7 * day if log_url.startswith("kafka") else None), "Kafka's defaults"
    with pytest.raises(UnknownTopic):
        reader.kept_ms("nowhere")


def test_what_retention_took_is_out_of_range(tmp_path: object) -> None:
    from backends.log.sqlite import SqliteLogAdmin

    path = f"{tmp_path}/log.db"
    tp = TopicPartition("t", 0)
    with closing(SqliteLogAdmin(path)) as admin:
        admin.create_topic("t", 1, 1)
        producer = open_producer(f"sqlite:///{path}")
        produce(producer, "t", 0, b"a", b"b", b"c")
        producer.close(5)
        admin.delete_before(tp, 2)
    with closing(open_reader(f"sqlite:///{path}")) as reader:
        assert reader.beginning_offsets([tp]) == {tp: 2}
        assert values(reader, tp, 2, 10) == [b"c"]
        with pytest.raises(OffsetOutOfRange):
            reader.read(tp, 1, 10)


def test_a_broker_that_is_away_is_an_error_and_not_the_end(private_kafka: Kafka) -> None:
    url = f"kafka://{private_kafka.servers}"
    tp = TopicPartition("away", 0)
    with closing(open_admin(url)) as admin:
        admin.create_topic("away", 1, 1)
    producer = open_producer(url)
    producer.partitions("away")
    produce(producer, "away", 0, b"a")
    producer.close(5)
    with closing(open_reader(url)) as reader:
        private_kafka.stop()
        with impatience():
            with pytest.raises(LogUnavailable):
                reader.read(tp, 0, 10)
            with pytest.raises(LogUnavailable):
                open_reader(url)
        private_kafka.start()
        assert values(reader, tp, 0, 10) == [b"a"]
