"""The log: topics of partitions of records, appended durably and read in order. One protocol, two implementations."""

from backends.log.protocol import (
    Admin,
    Consumer,
    LogError,
    LogUnavailable,
    OffsetOutOfRange,
    Producer,
    Reader,
    Record,
    RecordTooLarge,
    TopicPartition,
    UnknownTopic,
)
from backends.log.select import open_admin, open_consumer, open_producer, open_reader

__all__ = [
    "Admin",
    "Consumer",
    "LogError",
    "LogUnavailable",
    "OffsetOutOfRange",
    "Producer",
    "Reader",
    "Record",
    "RecordTooLarge",
    "TopicPartition",
    "UnknownTopic",
    "open_admin",
    "open_consumer",
    "open_producer",
    "open_reader",
]
