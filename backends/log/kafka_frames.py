"""The bytes that appending takes: a batch of records (format 2), and the two requests of an idempotent producer.

Pure. Produce 7 and InitProducerId 1 are what every broker from 2.1 on has, without the flexible versions' tags.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from crc32c import crc32c

PRODUCE, PRODUCE_VERSION = 0, 7
INIT_PRODUCER_ID, INIT_PRODUCER_ID_VERSION = 22, 1
CLIENT_ID = b"zenstep"
_FRAME = struct.Struct(f">ihhih{len(CLIENT_ID)}s")  # length, API, version, correlation, client
_BEFORE_CHECKSUM = struct.Struct(">qiib")  # base offset, length, leader epoch, format
_AFTER_CHECKSUM = struct.Struct(">hiqqqhii")  # attributes, last offset, times, producer, epoch, sequence, records
_UINT32 = struct.Struct(">I")
_INT32 = struct.Struct(">i")
_OF_PARTITION = struct.Struct(">ihqqq")  # partition, error, base offset, append time, log's start
_OF_IDENTITY = struct.Struct(">ihqh")  # throttled, error, producer, epoch
_BEFORE_LENGTH = 12  # of a batch: what its own length does not count


class Identity(NamedTuple):
    """Of an idempotent producer: its records of a partition are numbered, and one number is appended once."""

    producer: int
    epoch: int


class Outcome(NamedTuple):
    """What the broker says of a partition's batch: an error code, 0 for none, and the offset of its first record."""

    error: int
    offset: int


def frame(api: int, version: int, correlation: int, body: bytes) -> bytes:
    """A request as it goes onto the connection."""
    size = _FRAME.size - 4 + len(body)
    return _FRAME.pack(size, api, version, correlation, len(CLIENT_ID), CLIENT_ID) + body


def batch(values: Sequence[bytes], epoch_ms: int, identity: Identity, sequence: int) -> bytes:
    """Records without keys, the first of which has this sequence number."""
    parts = [b""]  # the head's place, which holds the length and the checksum of what follows
    size = 0
    for delta, value in enumerate(values):
        head = b"\0\0" + _varint(delta) + b"\1" + _varint(len(value))  # no attributes, later by 0 ms, no key
        length = len(head) + len(value) + 1
        prefix = _varint(length) + head
        parts += (prefix, value, b"\0")  # no headers
        size += len(prefix) + len(value) + 1
    last = len(values) - 1
    checked = _AFTER_CHECKSUM.pack(0, last, epoch_ms, epoch_ms, *identity, sequence, len(values))
    checksum = crc32c(checked)
    for part in parts:
        checksum = crc32c(part, checksum)
    length = _BEFORE_CHECKSUM.size + 4 + len(checked) + size - _BEFORE_LENGTH
    parts[0] = _BEFORE_CHECKSUM.pack(0, length, -1, 2) + _UINT32.pack(checksum) + checked
    return b"".join(parts)


def produce(topics: Mapping[str, Sequence[tuple[int, bytes]]], patience_ms: int) -> bytes:
    """The body of a request to append these batches, each with its partition, to all in-sync replicas."""
    parts = [struct.pack(">hhii", -1, -1, patience_ms, len(topics))]  # no transaction, all replicas
    for topic, batches in topics.items():
        name = topic.encode()
        parts.append(struct.pack(f">h{len(name)}si", len(name), name, len(batches)))
        for partition, content in batches:
            parts += (struct.pack(">ii", partition, len(content)), content)
    return b"".join(parts)


def produced(answer: bytes) -> dict[tuple[str, int], Outcome]:
    """What became of each topic's partition. Raises struct.error."""
    found = {}
    (topics,), at = _INT32.unpack_from(answer, 0), 4
    for _ in range(topics):
        (length,) = struct.unpack_from(">h", answer, at)
        topic = answer[at + 2 : at + 2 + length].decode()
        at += 2 + length
        (partitions,) = _INT32.unpack_from(answer, at)
        at += 4
        for _ in range(partitions):
            partition, error, offset, _, _ = _OF_PARTITION.unpack_from(answer, at)
            at += _OF_PARTITION.size
            found[topic, partition] = Outcome(error, offset)
    return found


def init_producer_id() -> bytes:
    """The body of a request for an identity without transactions."""
    return struct.pack(">hi", -1, 0x7FFFFFFF)


def identity_of(answer: bytes) -> tuple[int, Identity]:
    """The error code, 0 for none, and the identity. Raises struct.error."""
    _, error, producer, epoch = _OF_IDENTITY.unpack_from(answer, 0)
    return error, Identity(producer, epoch)


def _varint(number: int) -> bytes:
    """Zigzag, as records have their numbers; not negative."""
    number <<= 1
    if number < 0x80:
        return bytes((number,))
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
