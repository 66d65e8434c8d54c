"""faust-streaming: an agent that takes a batch at a time; what it has taken is acknowledged when it asks for more."""

import asyncio
import sys
import tempfile

import faust
from worker_store import Store, arguments

FULL_SECONDS = 0.5


def main() -> None:
    given = arguments()
    store = Store(given.database)
    application = faust.App(
        given.group,
        broker=f"kafka://{given.servers}",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        topic_partitions=1,
        datadir=tempfile.mkdtemp(prefix="faust-"),
    )
    topic = application.topic(given.topic, value_type=bytes, value_serializer="raw")

    @application.agent(topic)
    async def count(stream: faust.StreamT) -> None:
        async for values in stream.take(given.records, within=FULL_SECONDS):
            await asyncio.to_thread(store.count, values)

    sys.argv = [sys.argv[0], "worker", "--without-web", "--loglevel", "warn"]
    application.main()


main()
