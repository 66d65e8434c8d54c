"""The records of a fetch are what kafka-python finds in it, whatever a broker may keep."""

import struct
import time
import uuid
from contextlib import closing
from itertools import accumulate

import kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import errors as kafka_errors
from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c, encode_varint

from backends.log import Record, TopicPartition, open_admin, open_consumer, open_reader
from backends.log.kafka_records import _PartitionRecords, varint

TP = kafka.TopicPartition("t", 3)
NONE, GZIP = 0, 1
Sent = list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]
"""Of each record its time, key, value and headers."""

some = st.none() | st.binary(max_size=300)
headers = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=150)), max_size=3)
kept = st.lists(
    st.tuples(st.integers(0, 2**41), some, st.none() | st.binary(max_size=20_000), headers), min_size=1, max_size=12
)


def built(
    records: Sent,
    offset: int = 0,
    codec: int = NONE,
    magic: int = 2,
) -> bytes:
    builder = MemoryRecordsBuilder(magic, codec, 1 << 30, offset)
    for timestamp, key, value, head in records:
        builder.append(timestamp, key, value, head if magic == 2 else [])
    builder.close()
    return bytes(builder.buffer())


def with_crc(batch: bytearray) -> bytes:
    """As the broker would seal it."""
    at = DefaultRecordBatch.CRC_OFFSET
    struct.pack_into(">I", batch, at, calc_crc32c(memoryview(batch)[DefaultRecordBatch.ATTRIBUTES_OFFSET :]))
    return bytes(batch)


def appended_by_the_broker(batch: bytes, stamp: int) -> bytes:
    changed = bytearray(batch)
    struct.pack_into(">h", changed, DefaultRecordBatch.ATTRIBUTES_OFFSET, DefaultRecordBatch.TIMESTAMP_TYPE_MASK)
    struct.pack_into(">q", changed, DefaultRecordBatch.ATTRIBUTES_OFFSET + 14, stamp)
    return with_crc(changed)


def theirs(data: bytes, start: int = 0) -> list[Record]:
    found = Fetcher.PartitionRecords(start, TP, MemoryRecords(data)).take()
    return [Record(r.topic, r.partition, r.offset, r.timestamp, r.value or b"") for r in found]


def ours(data: bytes, start: int = 0) -> "_PartitionRecords":
    return _PartitionRecords(start, TP, MemoryRecords(data))


@given(kept, kept, st.integers(0, 2**30), st.sampled_from([NONE, GZIP]), st.integers(0, 24))
def test_they_are_as_they_were_written(first: Sent, second: Sent, base: int, codec: int, skipped: int) -> None:
    data = built(first, base, codec) + built(second, base + len(first))
    start = base + min(skipped, len(first) + len(second) - 1)
    found = ours(data, start)
    assert found.take() == theirs(data, start)
    assert found.next_fetch_offset == base + len(first) + len(second)
    assert not found


@given(kept, st.lists(st.integers(1, 5), min_size=1))
def test_taken_in_parts_each_tells_where_the_next_begins(records: Sent, sizes: list[int]) -> None:
    part = ours(built(records, 7), 7)
    for end in accumulate(sizes):
        if end < len(records):
            assert [r.offset for r in part.take(end - (part.next_fetch_offset - 7))][-1] == 6 + end
            assert part.next_fetch_offset == 7 + end
    rest = part.take()
    assert rest[-1].offset == 6 + len(records)


def test_of_a_topic_that_the_broker_stamps_all_of_a_batch_were_taken_when_it_was() -> None:
    data = appended_by_the_broker(built([(1, None, b"a", []), (2, None, b"b", [])]), 1_800_000_000_000)
    assert [r.timestamp for r in ours(data).take()] == [1_800_000_000_000] * 2
    assert theirs(data) == ours(data).take()


def test_a_record_without_a_value_is_an_empty_one() -> None:
    assert [r.value for r in ours(built([(1, b"key", None, []), (1, None, b"", [])])).take()] == [b"", b""]


def test_neither_a_member_nor_a_reader_minds_a_tombstone(kafka_servers: str) -> None:
    url, topic = f"kafka://{kafka_servers}", f"t.{uuid.uuid4().hex}"
    with closing(open_admin(url)) as admin:
        admin.create_topic(topic, 1, 1)
    producer = kafka.KafkaProducer(bootstrap_servers=kafka_servers)
    for value in (b"a", None, b"b"):
        producer.send(topic, key=b"key", value=value, partition=0, headers=[("h", b"x")]).get(15)
    producer.close()
    with closing(open_reader(url)) as reader:
        assert [r.value for r in reader.read(TopicPartition(topic, 0), 0, 9)] == [b"a", b"", b"b"]
    found: list[bytes] = []
    with closing(open_consumer(url, topic, [topic], lambda given: dict.fromkeys(given, 0), lambda _: None)) as member:
        deadline = time.monotonic() + 40
        while len(found) < 3:
            assert time.monotonic() < deadline, "it did not come to that"
            found += [record.value for record in member.poll(0.5, 9)]
    assert found == [b"a", b"", b"b"]


def test_what_is_no_record_but_a_transactions_mark_is_passed_over() -> None:
    marked = bytearray(built([(1, b"\0\0\0\1", b"mark", [])], 5))
    struct.pack_into(">h", marked, DefaultRecordBatch.ATTRIBUTES_OFFSET, DefaultRecordBatch.CONTROL_MASK)
    data = built([(1, None, b"a", [])], 4) + with_crc(marked) + built([(1, None, b"b", [])], 6)
    found = ours(data, 4)
    assert [(r.offset, r.value) for r in found.take()] == [(4, b"a"), (6, b"b")]
    assert found.next_fetch_offset == 7


def test_behind_what_compaction_has_taken_it_goes_on_at_the_end_of_the_batch() -> None:
    batch = bytearray(built([(1, None, b"a", [])], 4))
    struct.pack_into(">i", batch, DefaultRecordBatch.ATTRIBUTES_OFFSET + 2, 9)  # the offset of the last one, gone
    found = ours(with_crc(batch), 4)
    assert [r.offset for r in found.take()] == [4]
    assert found.next_fetch_offset == 10


def test_of_a_release_before_kafka_had_this_format_too() -> None:
    data = built([(5, b"k", b"a", []), (6, None, None, [])], 2, magic=1)
    assert ours(data, 2).take() == theirs(data, 2) == [Record("t", 3, 2, 5, b"a"), Record("t", 3, 3, 6, b"")]


@pytest.mark.parametrize("at", [61, 64, 67, -1])
def test_a_byte_that_has_changed_is_told(at: int) -> None:
    batch = bytearray(built([(1, b"key", b"value", [("h", b"x")])]))
    batch[at] ^= 1
    with pytest.raises(kafka_errors.CorruptRecordError):
        ours(bytes(batch)).take()


@given(kept, st.integers(61, 400), st.integers(0, 255))
def test_no_bytes_of_a_sealed_batch_are_read_beyond_it(records: Sent, at: int, byte: int) -> None:
    batch = bytearray(built(records))
    batch[min(at, len(batch) - 1)] = byte
    try:
        found = ours(with_crc(batch)).take()
    except kafka_errors.CorruptRecordError:
        return
    assert len(found) <= len(records)
    assert sum(len(record.value) for record in found) <= len(batch)


@given(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=3))
def test_a_number_is_read_as_it_was_written(number: int, before: bytes) -> None:
    data = bytearray(before)
    encode_varint(number, data.append)
    assert varint(bytes(data), len(before)) == (number, len(data))
