"""The appender on a real Kafka, with a proxy between them that loses what the network may lose."""

import asyncio
import struct
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import NotLeaderForPartitionError
from kafka.protocol.producer import ProduceRequest, ProduceResponse

from backends.log import (
    LogUnavailable,
    RecordTooLarge,
    TopicPartition,
    kafka_appender,
    kafka_lane,
    open_admin,
    open_reader,
)
from backends.log import kafka_frames as frames
from backends.log.kafka_appender import Appender, Cluster
from chaos.ports import settled_port
from chaos.proxy import Loop, Proxy
from tests.working import until

PARTITIONS = 4
PATIENCE = 30.0


class Situation:
    """A topic, and an appender that reaches it through `proxy` only."""

    def __init__(self, servers: str, proxy: Proxy) -> None:
        self.servers = servers
        self.proxy = proxy
        self.topic = f"a.{uuid.uuid4().hex}"
        self.limits: dict[str, int] = {}
        self.make()

    def make(self) -> None:
        with closing(open_admin(f"kafka://{self.servers}")) as admin:
            admin.create_topic(self.topic, PARTITIONS, 1)

    def appender(self, patience: float = PATIENCE) -> Appender:
        def ask(topics: Collection[str]) -> Cluster:
            leaders = {(topic, partition): 5 for topic in topics for partition in range(PARTITIONS)}
            return Cluster(leaders, {5: ("127.0.0.1", self.proxy.port)})

        return Appender(ask, self.limits, patience)

    def append(self, appender: Appender, *values: bytes, partition: int = 0) -> list["asyncio.Future[int]"]:
        made: list[Future[int]] = [Future() for _ in values]
        appender.append(self.topic, [(partition, value, done) for value, done in zip(values, made, strict=True)])
        return [asyncio.wrap_future(done) for done in made]

    def there(self, partition: int = 0) -> list[bytes]:
        """What the log has, asked without the proxy."""
        found: list[bytes] = []
        with closing(open_reader(f"kafka://{self.servers}")) as reader:
            while records := reader.read(TopicPartition(self.topic, partition), len(found), 1000):
                found += [record.value for record in records]
        return found

    async def arrived(self, values: Sequence[bytes]) -> None:
        await asyncio.to_thread(until, lambda: self.there() == list(values))

    def configure(self, **settings: str) -> None:
        names = {name.replace("_", "."): value for name, value in settings.items()}
        client = KafkaAdminClient(bootstrap_servers=self.servers)
        try:
            client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.topic, configs=names)])
        finally:
            client.close()


@pytest.fixture
def situation(kafka_servers: str) -> Iterator[Situation]:
    loop = Loop()
    proxy = Proxy(loop, settled_port(), int(kafka_servers.rpartition(":")[2]))
    yield Situation(kafka_servers, proxy)
    proxy.close()
    loop.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        await asyncio.wait_for(scenario(), 90)

    asyncio.run(within())


def test_offsets_follow_each_other(situation: Situation) -> None:
    async def scenario() -> None:
        appender = situation.appender()
        assert await asyncio.gather(*situation.append(appender, b"a", b"b")) == [0, 1]
        identity = appender._identity
        others = situation.append(appender, b"c") + situation.append(appender, b"d", partition=3)
        assert await asyncio.gather(*others) == [2, 0]
        assert appender._identity is identity, "the broker did not expect these numbers"
        await appender.close(5)

    run(scenario)
    assert situation.there() == [b"a", b"b", b"c"]


def test_records_whose_acknowledgement_is_lost_are_appended_once(situation: Situation) -> None:
    async def scenario() -> None:
        appender = situation.appender()
        await asyncio.gather(*situation.append(appender, b"before"))
        situation.proxy.set("deaf")
        lost = situation.append(appender, b"a", b"b")
        await situation.arrived([b"before", b"a", b"b"])
        behind = situation.append(appender, b"c")
        situation.proxy.set("cut")
        situation.proxy.set("pass")
        assert await asyncio.gather(*lost, *behind) == [1, 2, 3]
        await appender.close(5)

    run(scenario)
    assert situation.there() == [b"before", b"a", b"b", b"c"]


def test_a_record_that_was_given_up_takes_nothing_from_the_next(situation: Situation) -> None:
    """The broker has it, under a number; one that came with the same number would be acknowledged and not be there."""

    async def scenario() -> None:
        appender = situation.appender(patience=2.0)
        await asyncio.gather(*situation.append(appender, b"before"))
        situation.proxy.set("deaf")
        given_up = situation.append(appender, b"given up")
        await situation.arrived([b"before", b"given up"])
        with pytest.raises(LogUnavailable):
            await given_up[0]
        situation.proxy.set("cut")
        situation.proxy.set("pass")
        assert await asyncio.gather(*situation.append(appender, b"next")) == [2]
        await appender.close(5)

    run(scenario)
    assert situation.there() == [b"before", b"given up", b"next"]


async def former_leader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Gives an identity, and of every batch says that another broker leads its partition."""
    while True:
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        request = await reader.readexactly(length)
        api, version, correlation = struct.unpack_from(">hhi", request)
        if api == frames.PRODUCE:
            sent = ProduceRequest.decode(request, version=version, header=True)
            topics = [
                {
                    "name": topic.name,
                    "partition_responses": [
                        {"index": one.index, "error_code": NotLeaderForPartitionError.errno, "base_offset": -1}
                        for one in topic.partition_data
                    ],
                }
                for topic in sent.topic_data
            ]
            answer = ProduceResponse(version=version, responses=topics).encode(version=version)
        else:
            answer = struct.pack(">ihqh", 0, 0, 4_711, 0)
        writer.write(struct.pack(">ii", len(answer) + 4, correlation) + answer)


def test_a_partition_that_is_led_by_another_broker_by_now_is_appended_to_there(situation: Situation) -> None:
    """On a real Kafka that takes three of them, and somebody to end one."""

    async def scenario() -> None:
        server = await asyncio.start_server(former_leader, "127.0.0.1", 0)
        ports = [server.sockets[0].getsockname()[1], situation.proxy.port]
        asked: list[int] = []

        def ask(topics: Collection[str]) -> Cluster:
            asked.append(min(len(asked), 1))  # the second time it is known
            return Cluster({(situation.topic, 0): asked[-1]}, {asked[-1]: ("127.0.0.1", ports[asked[-1]])})

        appender = Appender(ask, {}, PATIENCE)
        assert await asyncio.gather(*situation.append(appender, b"a", b"b")) == [0, 1]
        assert asked == [0, 1]
        await appender.close(5)
        server.close()

    run(scenario)
    assert situation.there() == [b"a", b"b"]


def test_records_keep_their_order_however_often_the_connection_ends(situation: Situation) -> None:
    async def scenario() -> None:
        appender = situation.appender()
        waiting: list[asyncio.Future[int]] = []
        for number in range(1, 301):
            for partition in range(PARTITIONS):
                waiting += situation.append(appender, b"%d" % number, partition=partition)
            await asyncio.sleep(0)
            if number % 60 == 0:
                await asyncio.wait(waiting[-80:], return_when=asyncio.FIRST_COMPLETED)
                situation.proxy.set("cut")
                situation.proxy.set("pass")
        await asyncio.gather(*waiting)
        await appender.close(5)

    run(scenario)
    for partition in range(PARTITIONS):
        assert situation.there(partition) == [b"%d" % number for number in range(1, 301)]


def test_a_topic_made_anew_is_appended_to(situation: Situation) -> None:
    """Its broker has never heard of the numbers that ours has come to."""

    async def scenario() -> None:
        appender = situation.appender()
        await asyncio.gather(*situation.append(appender, b"a"), *situation.append(appender, b"b"))
        await asyncio.to_thread(anew)
        assert await asyncio.gather(*situation.append(appender, b"c")) == [0]
        await appender.close(5)

    def anew() -> None:
        client = KafkaAdminClient(bootstrap_servers=situation.servers)
        client.delete_topics([situation.topic])
        client.close()
        with closing(open_admin(f"kafka://{situation.servers}")) as admin:
            until(lambda: situation.topic not in admin.topics())
        until(there_again)

    def there_again() -> bool:
        with suppress(LogUnavailable):  # its name is not free yet
            situation.make()
        with closing(open_admin(f"kafka://{situation.servers}")) as admin:
            return situation.topic in admin.topics()

    run(scenario)
    assert situation.there() == [b"c"]


def test_numbers_that_the_broker_does_not_expect_are_given_anew(situation: Situation) -> None:
    async def scenario() -> None:
        appender = situation.appender()
        await asyncio.gather(*situation.append(appender, b"a"))
        appender._lanes[situation.topic, 0]._sequence = 1_000
        first = situation.append(appender, b"b", b"c")
        await asyncio.sleep(0)
        behind = situation.append(appender, b"d")
        assert await asyncio.gather(*first, *behind) == [1, 2, 3]
        await appender.close(5)

    run(scenario)
    assert situation.there() == [b"a", b"b", b"c", b"d"]


def test_a_record_that_is_too_large_takes_none_with_it(situation: Situation) -> None:
    """The topic takes less than it did when it was asked."""
    situation.configure(max_message_bytes="100000")
    small = [b"a" * 40_000, b"b" * 40_000, b"c" * 40_000]

    async def scenario() -> None:
        appender = situation.appender()
        first, large, second, third = situation.append(appender, small[0], b"x" * 200_000, small[1], small[2])
        assert await asyncio.gather(first, second, third) == [0, 1, 2]
        with pytest.raises(RecordTooLarge):
            await large
        assert await asyncio.gather(*situation.append(appender, b"after")) == [3]
        await appender.close(5)

    run(scenario)
    assert situation.there() == [*small, b"after"]


def test_a_batch_is_not_larger_than_its_topic_takes(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def batch(*given: Any) -> bytes:
        made = frames.batch(*given)
        sizes.append(len(made))
        return made

    monkeypatch.setattr(kafka_lane, "frames", SimpleNamespace(batch=batch))
    situation.configure(max_message_bytes="100000")
    situation.limits[situation.topic] = 99_000
    values = [bytes([65 + number]) * 30_000 for number in range(7)]

    async def scenario() -> None:
        appender = situation.appender()
        assert await asyncio.gather(*situation.append(appender, *values)) == list(range(7))
        await appender.close(5)

    run(scenario)
    assert situation.there() == values
    assert 90_000 < max(sizes) <= 99_000


def test_what_is_not_acknowledged_when_it_closes_fails(situation: Situation) -> None:
    async def scenario() -> None:
        appender = situation.appender()
        await asyncio.gather(*situation.append(appender, b"a"))
        situation.proxy.set("black-hole")
        waiting = situation.append(appender, b"b") + situation.append(appender, b"c")
        await appender.close(0.2)
        for one in waiting + situation.append(appender, b"d"):
            with pytest.raises(LogUnavailable):
                await one

    run(scenario)


def test_a_broker_is_not_sent_more_than_it_can_answer_in_time(
    situation: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_appender, "MAX_UNANSWERED_BYTES", 2_000_000)  # reached by three of the partitions
    values, numbers = [b"x" * 900_000] * 2, range(PARTITIONS)

    async def scenario() -> None:
        appender = situation.appender()
        await asyncio.gather(*(one for n in numbers for one in situation.append(appender, b"a", partition=n)))
        situation.proxy.set("deaf")
        waiting = [one for n in numbers for one in situation.append(appender, *values, partition=n)]
        await asyncio.to_thread(until, lambda: sum(len(situation.there(n)) for n in numbers) >= PARTITIONS + 3)
        (connection,) = appender._connections.values()
        assert 2_000_000 < connection.unanswered_bytes < 3_000_000
        situation.proxy.set("cut")
        situation.proxy.set("pass")
        await asyncio.gather(*waiting)
        await appender.close(5)

    run(scenario)
    assert [len(situation.there(n)) for n in numbers] == [3] * PARTITIONS


def test_a_full_buffer_refuses_and_has_room_again(situation: Situation) -> None:
    async def scenario() -> None:
        appender = situation.appender()
        situation.proxy.set("black-hole")
        large = situation.append(appender, *[b"x" * 900_000] * 38)
        refused = [one for one in large if one.done() or await failed(one)]
        assert len(refused) == 1
        situation.proxy.set("pass")
        assert len(await asyncio.gather(*(one for one in large if one not in refused))) == 37
        await asyncio.gather(*situation.append(appender, b"again"))
        await appender.close(5)

    async def failed(one: "asyncio.Future[int]") -> bool:
        await asyncio.sleep(0)
        return one.done()

    run(scenario)
