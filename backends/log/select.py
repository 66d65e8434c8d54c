"""Chooses the log by its address: `kafka://host:port[,host:port]` or `sqlite:///path`."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from backends.log.protocol import Admin, Consumer, OnAssign, OnRevoke, Producer, Reader


def open_producer(url: str) -> Producer:
    """Raises ValueError for an address that is neither kind. Does not wait for the log to answer."""
    kind, rest = _split(url)
    if kind == "kafka":
        from backends.log.kafka import KafkaLogProducer

        return KafkaLogProducer(rest)
    from backends.log.sqlite import SqliteLogProducer

    return SqliteLogProducer(rest)


def open_consumer(url: str, group: str, topics: Sequence[str], on_assign: OnAssign, on_revoke: OnRevoke) -> Consumer:
    """A member of `group`. Raises ValueError as `open_producer`."""
    kind, rest = _split(url)
    if kind == "kafka":
        from backends.log.kafka_group import KafkaLogConsumer

        return KafkaLogConsumer(rest, group, topics, on_assign, on_revoke)
    from backends.log.sqlite_group import SqliteLogConsumer

    return SqliteLogConsumer(rest, group, topics, on_assign, on_revoke)


def open_reader(url: str) -> Reader:
    """Raises ValueError as `open_producer`."""
    kind, rest = _split(url)
    if kind == "kafka":
        from backends.log.kafka_reader import KafkaLogReader

        return KafkaLogReader(rest)
    from backends.log.sqlite_reader import SqliteLogReader

    return SqliteLogReader(rest)


def open_admin(url: str) -> Admin:
    """Raises ValueError as `open_producer`."""
    kind, rest = _split(url)
    if kind == "kafka":
        from backends.log.kafka_admin import KafkaLogAdmin

        return KafkaLogAdmin(rest)
    from backends.log.sqlite import SqliteLogAdmin

    return SqliteLogAdmin(rest)


def _split(url: str) -> tuple[str, str]:
    kind, separator, rest = url.partition("://")
    known = kind == "sqlite" or (kind == "kafka" and all(map(_is_server, rest.split(","))))
    if not known or not separator or not rest.strip("/"):
        raise ValueError(f"not a log address: {url!r} (kafka://host:port or sqlite:///path)")
    return kind, rest if kind == "kafka" else rest.removeprefix("/")


def _is_server(text: str) -> bool:
    """`host` or `host:port`; an IPv6 address in brackets."""
    try:
        parts = urlsplit(f"//{text}")
        return parts.netloc == text and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
