"""What every client of Kafka here shares: how it is opened, how long it is patient, how its errors read."""

import selectors
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import kafka
from kafka import errors as kafka_errors

from backends.log.protocol import LogError, LogUnavailable, RecordTooLarge, TopicPartition, UnknownTopic

REQUEST_MS = 4_000
CONNECT_MS = 4_000
TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


class _Selector(selectors.DefaultSelector):
    """kafka-python asks it for each socket before every wait, and looks only at whether it raises KeyError."""

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """By its number: of a socket that is not there the standard one has a message written out, twice."""
        number = fileobj.fileno()
        key = self.get_map().get(number if number >= 0 else fileobj)  # one that is closed may be there still
        if key is None:
            raise KeyError(number)
        return key


_COMMON: dict[str, Any] = {
    "selector": _Selector,
    "request_timeout_ms": REQUEST_MS,
    "bootstrap_timeout_ms": CONNECT_MS,
    "reconnect_backoff_ms": 50,
    "reconnect_backoff_max_ms": 1_000,
}
_FINAL = (kafka_errors.AuthorizationError, kafka_errors.UnsupportedVersionError, kafka_errors.KafkaConfigurationError)


def translate(error: BaseException) -> LogError:
    """Kafka's error in this protocol's words."""
    name = type(error).__name__  # kafka-python's own errors begin with it already
    text = str(error) if str(error).startswith(name) else f"{name}: {error}" if str(error) else name
    if isinstance(error, TOO_LARGE):
        return RecordTooLarge(text)
    if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
        return UnknownTopic(f"{text}: run zenstep topics create")
    if isinstance(error, _FINAL):
        return LogError(text)
    return LogUnavailable(text)


@contextmanager
def translated() -> Iterator[None]:
    """Raises kafka-python's errors, and the sockets', as LogErrors."""
    try:
        yield
    except (kafka_errors.KafkaError, OSError) as error:
        raise translate(error) from error


def offsets(
    ask: Callable[[list[Any]], dict[Any, int]], partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """What a client's method tells of each, such as `end_offsets`."""
    with translated():
        found = ask([kafka.TopicPartition(*tp) for tp in partitions])
    return {TopicPartition(*tp): offset for tp, offset in found.items()}


def open_client(kind: Any, servers: str, **options: Any) -> Any:
    """A client of kafka-python's. Where it cannot connect, its constructor would leave its thread running for ever."""
    client = kind.__new__(kind)
    try:
        client.__init__(bootstrap_servers=servers.split(","), **_COMMON | options)
    except BaseException:
        if network := getattr(client, "_client", None):
            network.close()
        raise
    return client
