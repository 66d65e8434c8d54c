"""The records of what Kafka answers to a fetch.

kafka-python makes two objects of each, with a dozen fields, over as many calls. Here a record is where it stands, when
it was taken and its value, and nothing else is read of it.
"""

from collections.abc import Iterator
from typing import Any

import kafka
from kafka import errors as kafka_errors
from kafka.consumer.fetcher import Fetcher
from kafka.record.default_records import DefaultRecordBatch

from backends.log.protocol import Record

V2 = 2
NO_KEY = 0x01  # a length of -1


def read_records(client: kafka.KafkaConsumer) -> None:
    """Has this consumer's `poll` return Records."""
    client._fetcher.PartitionRecords = _PartitionRecords


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """One partition's part of an answer. Raises CorruptRecordError."""

    def _unpack_records(self, tp: kafka.TopicPartition, records: Any, *_: object) -> Iterator[Record]:
        while (batch := records.next_batch()) is not None:
            if not batch.validate_crc():
                raise kafka_errors.CorruptRecordError(f"{tp.topic}[{tp.partition}] offset {batch.base_offset}: CRC")
            end: int | None = None
            if batch.magic != V2:
                found = [Record(tp.topic, tp.partition, one.offset, one.timestamp, one.value or b"") for one in batch]
            else:
                self.leader_epoch = batch.leader_epoch
                end = batch.next_offset  # known even where compaction has taken the last record
                # Those of control are a transaction's marks, and nothing that anybody wrote.
                found = [] if batch.is_control_batch else unpacked(tp, batch)
            for record in found:
                self.next_fetch_offset = record.offset + 1
                yield record
            if end is not None:
                self.next_fetch_offset = end
            # By which kafka-python tells whether there were any, to take partitions in turns.
            self.bytes_read += len(found)
        self.drain()


def unpacked(tp: kafka.TopicPartition, batch: DefaultRecordBatch) -> list[Record]:
    """The records of a batch; one without a value has an empty one. Raises CorruptRecordError."""
    batch._maybe_uncompress()
    data, at = bytes(batch._buffer), batch._pos
    topic, partition = tp
    base, first, appended = batch.base_offset, batch.first_timestamp, batch.timestamp_type == 1
    stamp = batch.max_timestamp
    found = []
    try:
        for _ in range(batch.records_count):
            length, at = varint(data, at)
            end = at + length
            at += 1  # behind its attributes, which mean nothing yet
            if appended:
                while data[at] > 0x7F:  # its own time, which does not count
                    at += 1
                at += 1
            else:
                delta, at = varint(data, at)
                stamp = first + delta
            place, at = varint(data, at)
            if data[at] == NO_KEY:
                at += 1
            else:
                size, at = varint(data, at)
                at += max(0, size)
            size, at = varint(data, at)
            behind = at + size if size > 0 else at
            if not behind <= end <= len(data):
                raise IndexError
            found.append(Record(topic, partition, base + place, stamp, data[at:behind]))
            at = end  # behind its headers
    except IndexError:
        at = -1
    if at != len(data):
        raise kafka_errors.CorruptRecordError(f"{topic}[{partition}] offset {base}: its records are not its length")
    return found


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number there, zigzag, and where it ends. Raises IndexError behind the end."""
    byte = data[at]
    if byte < 0x80:
        return byte >> 1 ^ -(byte & 1), at + 1
    second = data[at + 1]
    value = byte & 0x7F | second << 7
    if second < 0x80:
        return value >> 1 ^ -(value & 1), at + 2
    at, shift = at + 2, 14
    value &= 0x3FFF
    while (byte := data[at]) >= 0x80:
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
    value |= byte << shift
    return value >> 1 ^ -(value & 1), at + 1
