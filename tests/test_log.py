"""The log's contract, held by both implementations: one suite, run on SQLite and on Kafka."""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from backends.log import (
    Consumer,
    LogError,
    LogUnavailable,
    OffsetOutOfRange,
    Producer,
    Record,
    RecordTooLarge,
    TopicPartition,
    UnknownTopic,
    open_admin,
    open_consumer,
    open_producer,
    open_reader,
)
from backends.log.kafka_group import SESSION_MS
from tests.patience import impatience
from tests.servers.kafka import Kafka
from tests.servers.ports import free_port

PARTITIONS = 4
ENOUGH_SECONDS = 40.0
AWAY_SECONDS = SESSION_MS / 1000 + 2


@pytest.fixture
def topic(log_url: str) -> str:
    name = f"t.{uuid.uuid4().hex}"
    with closing(open_admin(log_url)) as admin:
        assert admin.create_topic(name, PARTITIONS, 1) is True
    return name


@pytest.fixture
def producer(log_url: str, topic: str) -> Iterator[Producer]:
    opened = open_producer(log_url)
    assert opened.partitions(topic) == PARTITIONS
    yield opened
    opened.close(5)


class Member:
    """A member of a group that reads from the beginning and keeps what it read and what it was told."""

    def __init__(self, log_url: str, topic: str, group: str, start: Mapping[TopicPartition, int] | None = None) -> None:
        self.start = dict(start or {})
        self.revoked: list[TopicPartition] = []
        self.assigned: list[TopicPartition] = []
        self.failures = 0
        self.records: list[Record] = []
        self.consumer: Consumer = open_consumer(log_url, group, [topic], self.on_assign, self.on_revoke)

    def on_assign(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        if self.failures:
            self.failures -= 1
            raise LogUnavailable("the store is away")
        self.assigned += partitions
        return {tp: self.start.get(tp, 0) for tp in partitions}

    def on_revoke(self, partitions: list[TopicPartition]) -> None:
        self.revoked += partitions

    def poll(self, timeout: float = 0.1) -> None:
        for record in self.consumer.poll(timeout, 100):
            self.start[TopicPartition(record.topic, record.partition)] = record.offset + 1
            self.records.append(record)

    def values(self) -> list[bytes]:
        return [record.value for record in self.records]

    def close(self) -> None:
        self.consumer.close()


def until(done: Callable[[], object], *members: Member) -> None:
    """Polls these members in turn until it is so."""
    deadline = time.monotonic() + ENOUGH_SECONDS
    while not done():
        assert time.monotonic() < deadline, "it did not come to that"
        for member in members:
            member.poll()


def produce(producer: Producer, topic: str, partition: int, *values: bytes) -> list[int]:
    return [f.result(15) for f in [producer.produce(topic, partition, value) for value in values]]


def test_a_topic_is_made_once(log_url: str, topic: str) -> None:
    with closing(open_admin(log_url)) as admin:
        assert admin.create_topic(topic, PARTITIONS, 1) is False
        assert admin.topics()[topic] == PARTITIONS


def test_offsets_of_a_partition_follow_each_other_from_zero(producer: Producer, topic: str) -> None:
    assert produce(producer, topic, 1, b"a", b"b", b"c") == [0, 1, 2]
    assert produce(producer, topic, 2, b"d") == [0]


def test_records_come_back_in_order_as_they_were(log_url: str, producer: Producer, topic: str) -> None:
    written = [f"record {n}".encode() for n in range(300)]
    before = time.time_ns() // 1_000_000
    produce(producer, topic, 0, *written)
    with closing(Member(log_url, topic, "g" + topic)) as member:
        until(lambda: len(member.records) >= 300, member)
        assert member.values() == written
        stamps = [record.timestamp for record in member.records]
        assert stamps == sorted(stamps)
        assert before - 5 <= stamps[0] <= stamps[-1] <= time.time_ns() // 1_000_000 + 5


def test_what_is_acknowledged_is_there_for_another_process_after_close(log_url: str, topic: str) -> None:
    first = open_producer(log_url)
    first.partitions(topic)
    produce(first, topic, 3, b"kept")
    first.close(5)
    with closing(Member(log_url, topic, "g" + topic)) as member:
        until(lambda: member.records, member)
        assert member.values() == [b"kept"]


def test_an_unknown_topic_is_named(log_url: str) -> None:
    opened = open_producer(log_url)
    with pytest.raises(UnknownTopic, match="nowhere"):
        opened.partitions("nowhere")
    with pytest.raises(LogError):
        opened.produce("nowhere", 0, b"x").result(15)
    opened.close(5)


def test_the_largest_record_is_taken_and_one_byte_over_the_topics_limit_is_not(producer: Producer, topic: str) -> None:
    limit = producer.max_record_bytes(topic)
    assert limit > 900_000
    assert produce(producer, topic, 0, b"x" * limit) == [0]
    with pytest.raises(RecordTooLarge):
        producer.produce(topic, 0, b"x" * (limit + 2048)).result(15)
    assert produce(producer, topic, 0, b"after") == [1]


def test_a_closed_producer_takes_nothing(log_url: str, topic: str) -> None:
    opened = open_producer(log_url)
    opened.partitions(topic)
    opened.close(5)
    with pytest.raises(LogUnavailable):
        opened.produce(topic, 0, b"x").result(5)


def test_reading_starts_where_on_assign_says(log_url: str, producer: Producer, topic: str) -> None:
    produce(producer, topic, 0, *(str(n).encode() for n in range(10)))
    with closing(Member(log_url, topic, "g" + topic, {TopicPartition(topic, 0): 7})) as member:
        until(lambda: len(member.records) >= 3, member)
        assert member.values() == [b"7", b"8", b"9"]


def test_on_assign_is_asked_again_after_it_failed(log_url: str, producer: Producer, topic: str) -> None:
    produce(producer, topic, 0, b"a")
    with closing(Member(log_url, topic, "g" + topic)) as member:
        member.failures = 2
        failed = 0
        deadline = time.monotonic() + ENOUGH_SECONDS
        while not member.records and time.monotonic() < deadline:
            try:
                member.poll()
            except LogUnavailable:
                failed += 1
        assert (failed, member.values()) == (2, [b"a"])


def test_seek_reads_again(log_url: str, producer: Producer, topic: str) -> None:
    produce(producer, topic, 0, b"a", b"b")
    with closing(Member(log_url, topic, "g" + topic)) as member:
        until(lambda: len(member.records) == 2, member)
        member.consumer.seek(TopicPartition(topic, 0), 1)
        until(lambda: len(member.records) == 3, member)
        assert member.values() == [b"a", b"b", b"b"]


def test_an_offset_that_is_not_there_stops_instead_of_starting_elsewhere(
    log_url: str, producer: Producer, topic: str
) -> None:
    produce(producer, topic, 0, b"a")
    with closing(Member(log_url, topic, "g" + topic, {TopicPartition(topic, 0): 50})) as member:
        with pytest.raises(OffsetOutOfRange):
            until(lambda: member.records, member)
        assert member.records == []


def test_bounds_of_a_partition(log_url: str, producer: Producer, topic: str) -> None:
    produce(producer, topic, 2, b"a", b"b")
    with closing(Member(log_url, topic, "g" + topic)) as member:
        partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        assert member.consumer.beginning_offsets(partitions) == dict.fromkeys(partitions, 0)
        ends = member.consumer.end_offsets(partitions)
        assert [ends[tp] for tp in partitions] == [0, 0, 2, 0]


def test_members_share_the_partitions_and_take_over_from_one_that_leaves(
    log_url: str, producer: Producer, topic: str
) -> None:
    group = "g" + topic
    numbers = itertools.count()

    def everywhere() -> set[bytes]:
        values = {f"{next(numbers)}".encode() for _ in range(PARTITIONS)}
        for partition, value in enumerate(sorted(values)):
            produce(producer, topic, partition, value)
        return values

    with ExitStack() as stack:
        first = stack.enter_context(closing(Member(log_url, topic, group)))
        until(lambda: len(first.consumer.assignment()) == PARTITIONS, first)
        written = everywhere()
        until(lambda: set(first.values()) == written, first)
        second = Member(log_url, topic, group, first.start)
        until(lambda: len(second.consumer.assignment()) == len(first.consumer.assignment()) == 2, first, second)
        assert not first.consumer.assignment() & second.consumer.assignment()
        assert set(first.revoked) == second.consumer.assignment()
        written |= everywhere()
        until(lambda: set(first.values()) | set(second.values()) == written, first, second)
        first.start |= second.start
        second.close()
        until(lambda: len(first.consumer.assignment()) == PARTITIONS, first)
        written |= everywhere()
        until(lambda: set(first.values()) | set(second.values()) == written, first)
        read = first.values() + second.values()
        assert len(read) == len(set(read)), "an orderly hand-over reads nothing twice"


def test_keeping_alive_reads_nothing_and_loses_nothing(log_url: str, producer: Producer, topic: str) -> None:
    with closing(Member(log_url, topic, "g" + topic)) as member:
        until(lambda: len(member.consumer.assignment()) == PARTITIONS, member)
        produce(producer, topic, 0, b"a", b"b")
        member.consumer.keep_alive(1.0)
        assert member.records == []
        produce(producer, topic, 0, b"c")
        until(lambda: len(member.records) >= 3, member)
        assert member.values() == [b"a", b"b", b"c"]


def test_a_member_that_waits_is_given_the_partitions_of_one_that_leaves(
    log_url: str, producer: Producer, topic: str
) -> None:
    group = f"g.{uuid.uuid4().hex}"
    first, second = Member(log_url, topic, group), Member(log_url, topic, group)
    until(lambda: len(first.assigned) > 0 and len(second.assigned) > 0, first, second)
    produce(producer, topic, 0, b"a")
    second.consumer.close()
    for _ in range(4):  # as a worker whose store is away: it waits, tries, and waits again
        first.failures = 1
        first.consumer.keep_alive(1.0)
        with suppress(LogUnavailable):
            first.poll()
    first.failures = 0
    until(lambda: len(first.consumer.assignment()) == PARTITIONS and first.values() == [b"a"], first)
    first.consumer.close()


def test_commit_never_fails_the_reader(log_url: str, producer: Producer, topic: str) -> None:
    produce(producer, topic, 0, b"a")
    with closing(Member(log_url, topic, "g" + topic)) as member:
        until(lambda: member.records, member)
        member.consumer.commit({TopicPartition(topic, 0): 1})
        member.poll()


@pytest.mark.usefixtures("hasty_delivery")
def test_kafka_away_then_back_is_an_error_and_then_none(private_kafka: Kafka) -> None:
    url = f"kafka://{private_kafka.servers}"
    with closing(open_admin(url)) as admin:
        admin.create_topic("bounced", 1, 1)
    producer = open_producer(url)
    producer.partitions("bounced")
    produce(producer, "bounced", 0, b"before")
    private_kafka.stop()
    started = time.monotonic()
    with pytest.raises(LogUnavailable):
        producer.produce("bounced", 0, b"during").result(30)
    assert time.monotonic() - started < 20
    with pytest.raises(LogUnavailable):
        producer.ping(1)
    private_kafka.start()
    deadline = time.monotonic() + ENOUGH_SECONDS
    offset = None
    while offset is None and time.monotonic() < deadline:
        with suppress(LogUnavailable):
            producer.partitions("bounced")  # as an edge does until all is well
            offset = producer.produce("bounced", 0, b"after").result(30)
    assert offset is not None and offset >= 1
    producer.close(5)


def test_kafka_away_at_the_start_fails_at_once_and_is_found_later(private_kafka: Kafka) -> None:
    url = f"kafka://{private_kafka.servers}"
    with closing(open_admin(url)) as admin:
        admin.create_topic("late", 1, 1)
    private_kafka.stop()
    producer = open_producer(url)
    started = time.monotonic()
    with pytest.raises(LogUnavailable):
        producer.produce("late", 0, b"x").result(5)
    assert time.monotonic() - started < 2
    with impatience(), pytest.raises(LogUnavailable):
        producer.partitions("late")
    private_kafka.start()
    assert producer.partitions("late") == 1
    assert produce(producer, "late", 0, b"y") == [0]
    producer.close(5)


def test_a_member_that_waited_while_kafka_was_away_reads_on(private_kafka: Kafka) -> None:
    url = f"kafka://{private_kafka.servers}"
    with closing(open_admin(url)) as admin:
        admin.create_topic("waited", 1, 1)
    with closing(Member(url, "waited", "g")) as member:
        until(lambda: member.consumer.assignment(), member)
        private_kafka.kill()
        failed = False
        deadline = time.monotonic() + AWAY_SECONDS
        while not failed and time.monotonic() < deadline:  # it may fail while everything is held back
            try:
                member.consumer.keep_alive(0.5)
            except LogUnavailable:
                failed = True
        private_kafka.start()
        producer = open_producer(url)
        producer.partitions("waited")
        produce(producer, "waited", 0, b"a")
        producer.close(5)
        until(lambda: member.values() == [b"a"], member)


@pytest.mark.usefixtures("impatient")
def test_a_kafka_that_cannot_be_reached_leaves_no_thread_behind() -> None:
    url = f"kafka://127.0.0.1:{free_port()}"
    before = set(threading.enumerate())
    producer, member = open_producer(url), Member(url, "t", "g")
    for refused in (
        lambda: open_admin(url),
        lambda: open_reader(url),
        lambda: producer.partitions("t"),
        lambda: producer.ping(0.5),
        member.poll,
    ):
        with pytest.raises(LogUnavailable):
            refused()
    assert set(threading.enumerate()) - before == set()


def test_the_partitions_of_a_dead_member_move_when_its_lease_is_over(tmp_path: Path) -> None:
    from backends.log.sqlite import SqliteLogAdmin
    from backends.log.sqlite_group import SESSION_SECONDS, SqliteLogConsumer

    path = f"{tmp_path}/log.db"
    with closing(SqliteLogAdmin(path)) as admin:
        admin.create_topic("t", 2, 1)
    now = 1000.0

    def assign(partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def open_member() -> SqliteLogConsumer:
        return SqliteLogConsumer(path, "g", ["t"], assign, lambda _: None, clock=lambda: now)

    dead, heir = open_member(), open_member()
    dead.poll(0, 1)
    assert len(dead.assignment()) == 2
    heir.poll(0.6, 1)
    assert len(heir.assignment()) == 0, "the holder has not let go"
    now += SESSION_SECONDS + 1
    heir.poll(0.6, 1)
    assert len(heir.assignment()) == 2
    dead._connection.close()
    heir.close()


def test_a_table_that_a_file_of_the_sqlite_log_has_not_is_made(tmp_path: Path) -> None:
    from backends.log.sqlite import _TABLES, connect

    for lost in sorted(_TABLES):
        with closing(connect(f"{tmp_path}/log.db")) as connection:
            connection.execute(f"DROP TABLE {lost}")
        with closing(connect(f"{tmp_path}/log.db")) as connection:
            assert connection.execute(f"SELECT count(*) FROM {lost}").fetchone() == (0,)
            assert not connection.in_transaction


def test_a_member_of_the_sqlite_log_knows_at_once_what_it_was_assigned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backends.log import sqlite_group

    url = f"sqlite:///{tmp_path}/log.db"
    with closing(open_admin(url)) as admin:
        admin.create_topic("t", PARTITIONS, 1)
    waits: list[float] = []
    clock = SimpleNamespace(monotonic=itertools.count(0, 0.1).__next__, sleep=waits.append)
    monkeypatch.setattr(sqlite_group, "time", clock)
    with closing(Member(url, "t", "g")) as member:
        member.poll(2.0)
        assert (len(member.assigned), waits) == (PARTITIONS, [])
        member.poll(2.0)
        assert waits


def test_the_sqlite_log_forgets_and_says_so(tmp_path: Path) -> None:
    from backends.log.sqlite import SqliteLogAdmin

    url = f"sqlite:///{tmp_path}/log.db"
    tp = TopicPartition("t", 0)
    with closing(SqliteLogAdmin(f"{tmp_path}/log.db")) as admin:
        admin.create_topic("t", 1, 1)
        producer = open_producer(url)
        produce(producer, "t", 0, b"a", b"b", b"c")
        admin.delete_before(tp, 2)
        producer.close(5)
    with closing(Member(url, "t", "g")) as member, pytest.raises(OffsetOutOfRange):
        member.poll()
    with closing(Member(url, "t", "h", {tp: 2})) as member:
        member.poll()
        assert member.values() == [b"c"]
        assert member.consumer.beginning_offsets([tp]) == {tp: 2}


@pytest.mark.parametrize("url", ["", "kafka://", "redis://x", "sqlite://", "localhost:9092"])
def test_an_address_of_no_log_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not a log address"):
        open_producer(url)
