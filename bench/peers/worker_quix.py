"""quixstreams with a sink of its own: a checkpoint is one transaction, then the offsets are committed."""

from quixstreams import Application
from quixstreams.sinks import BaseSink
from worker_store import Store, arguments

FULL_SECONDS = 0.5


class PostgresSink(BaseSink):
    """All of a checkpoint's records at once, whatever their partitions."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._values: list[bytes] = []

    def add(self, value, key, timestamp, headers, topic, partition, offset) -> None:  # type: ignore[no-untyped-def]
        self._values.append(value)

    def flush(self) -> None:
        self._store.count(self._values)
        self._values.clear()

    def on_paused(self) -> None:
        self._values.clear()


def main() -> None:
    given = arguments()
    application = Application(
        broker_address=given.servers,
        consumer_group=given.group,
        auto_offset_reset="earliest",
        commit_every=given.records,
        commit_interval=FULL_SECONDS,
        loglevel="WARNING",
    )
    topic = application.topic(given.topic, key_deserializer="bytes", value_deserializer="bytes")
    application.dataframe(topic).sink(PostgresSink(Store(given.database)))
    application.run()


main()
