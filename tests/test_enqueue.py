"""From envelopes to records: what shares a record, and that nobody is told "written" before the log has said so."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.log import LogUnavailable, RecordTooLarge, TopicPartition, UnknownTopic, open_admin, open_producer
from backends.log.sqlite import MAX_RECORD_BYTES, connect, read
from ingest import enqueue
from ingest.enqueue import Enqueuer
from schemas.ids import partition_of

TOPIC = "t.events"
PARTITIONS = 4
HERE = "0b0c1c1e-3c1c-4c58-9d43-0c6f8a1f9d11"
THERE = "5a3f7f0e-8e41-4f0e-9a57-7f5f0f6a2b22"
assert partition_of(HERE, PARTITIONS) != partition_of(THERE, PARTITIONS)


class HeldLog:
    """A producer whose acknowledgements are given by hand, which no real log allows."""

    def __init__(self, max_bytes: int = 1000) -> None:
        self.max_bytes = max_bytes
        self.records: list[tuple[int, bytes, Future[int]]] = []

    def partitions(self, topic: str) -> int:
        return PARTITIONS

    def max_record_bytes(self, topic: str) -> int:
        return self.max_bytes

    def ping(self, timeout: float) -> None: ...

    def close(self, timeout: float) -> None: ...

    def produce(self, topic: str, partition: int, value: bytes) -> "Future[int]":
        done: Future[int] = Future()
        self.records.append((partition, value, done))
        return done

    def produce_all(self, topic: str, records: Sequence[tuple[int, bytes]]) -> "list[Future[int]]":
        return [self.produce(topic, partition, value) for partition, value in records]

    def values(self) -> list[bytes]:
        return [value for _, value, _ in self.records]

    def acknowledge(self) -> None:
        for offset, (_, _, done) in enumerate(self.records):
            done.set_result(offset)


def scenario(run: Callable[[HeldLog, Enqueuer], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        async def within() -> None:
            log = HeldLog()
            await run(log, connected(log))

        asyncio.run(asyncio.wait_for(within(), 30))

    return test


def connected(log: HeldLog, timeout: float = 30) -> Enqueuer:
    enqueuer = Enqueuer(log, TOPIC, timeout)
    enqueuer.connect()
    return enqueuer


async def ticks() -> None:
    """Long enough for everything that is ready to have run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def produced(log: HeldLog, records: int) -> None:
    while len(log.records) < records:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)


def put(enqueuer: Enqueuer, *lines: bytes, organisation: str = HERE) -> list["asyncio.Task[None]"]:
    return [asyncio.create_task(put_one(enqueuer, line, organisation)) for line in lines]


async def put_one(enqueuer: Enqueuer, line: bytes, organisation: str = HERE) -> None:
    await enqueuer.put(organisation, line)


async def outcomes(tasks: list["asyncio.Task[None]"]) -> list[BaseException | None]:
    return await asyncio.gather(*tasks, return_exceptions=True)


@scenario
async def test_nobody_is_told_before_the_log_has_acknowledged(log: HeldLog, enqueuer: Enqueuer) -> None:
    tasks = put(enqueuer, b"one")
    await ticks()
    assert log.values() == [b"one"]
    assert not tasks[0].done()
    log.acknowledge()
    assert await outcomes(tasks) == [None]


@scenario
async def test_requests_of_one_tick_for_one_partition_share_a_record_in_order(log: HeldLog, enqueuer: Enqueuer) -> None:
    tasks = put(enqueuer, b"a", b"b") + put(enqueuer, b"x", organisation=THERE) + put(enqueuer, b"c")
    await ticks()
    found = [(partition, value) for partition, value, _ in log.records]
    assert found == [(partition_of(HERE, PARTITIONS), b"a\nb\nc"), (partition_of(THERE, PARTITIONS), b"x")]
    log.acknowledge()
    assert await outcomes(tasks) == [None] * 4


@scenario
async def test_what_comes_while_a_record_is_under_way_shares_the_next(log: HeldLog, enqueuer: Enqueuer) -> None:
    tasks = put(enqueuer, b"a")
    await ticks()
    for line in (b"b", b"c"):
        tasks += put(enqueuer, line)
        await ticks()
    log.acknowledge()
    await tasks[0]
    await produced(log, 2)
    assert log.values() == [b"a", b"b\nc"]
    log.records[1][2].set_result(1)
    assert await outcomes(tasks) == [None] * 3


@scenario
async def test_nobody_waits_long_for_the_records_before(log: HeldLog, enqueuer: Enqueuer) -> None:
    """A partition whose acknowledgement is slow holds up neither itself nor the others."""
    tasks = put(enqueuer, b"a")
    await ticks()
    tasks += put(enqueuer, b"b") + put(enqueuer, b"x", organisation=THERE)
    await produced(log, 3)
    for number in (2, 1, 0):
        log.records[number][2].set_result(number)
        await tasks[number]
        assert [task.done() for task in tasks].count(True) == 3 - number
    assert log.values() == [b"a", b"b", b"x"]


@pytest.mark.parametrize(("company", "kept"), [(1, True), (10**6, False)], ids=["many", "few"])
def test_the_next_records_are_kept_for_company_after_many_requests_and_not_after_few(
    company: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue, "PACE_SECONDS", 3600.0)
    monkeypatch.setattr(enqueue, "COMPANY", company)

    @scenario
    async def run(log: HeldLog, enqueuer: Enqueuer) -> None:
        first = put(enqueuer, b"a")
        await ticks()
        log.acknowledge()
        await outcomes(first)
        second = put(enqueuer, b"b")
        await ticks()
        if kept:
            assert log.values() == [b"a"]
            second[0].cancel()
            return
        await produced(log, 2)
        log.records[1][2].set_result(1)
        assert await outcomes(second) == [None]

    run()


@scenario
async def test_a_failure_reaches_everyone_in_the_record_and_nobody_else(log: HeldLog, enqueuer: Enqueuer) -> None:
    tasks = put(enqueuer, b"a", b"b") + put(enqueuer, b"x", organisation=THERE)
    await ticks()
    log.records[0][2].set_exception(UnknownTopic("gone"))
    log.records[1][2].set_result(0)
    found = await outcomes(tasks)
    assert [type(outcome) for outcome in found] == [UnknownTopic, UnknownTopic, type(None)]


@scenario
async def test_a_fault_of_the_log_reads_as_unavailable(log: HeldLog, enqueuer: Enqueuer) -> None:
    tasks = put(enqueuer, b"a")
    await ticks()
    log.records[0][2].set_exception(ZeroDivisionError())
    assert isinstance((await outcomes(tasks))[0], LogUnavailable)


@scenario
async def test_a_client_that_goes_away_takes_nothing_from_those_beside_it(log: HeldLog, enqueuer: Enqueuer) -> None:
    tasks = put(enqueuer, b"a", b"b", b"c")
    await asyncio.sleep(0)
    tasks[0].cancel()  # before its record is made
    await ticks()
    tasks[1].cancel()  # and after
    await ticks()
    log.acknowledge()
    await tasks[2]
    assert log.values()[-1].endswith(b"b\nc")
    assert [task.cancelled() for task in tasks] == [True, True, False]


def test_an_acknowledgement_that_comes_too_late_is_a_503_and_harmless_when_it_comes() -> None:
    async def within() -> None:
        log = HeldLog()
        enqueuer = connected(log, timeout=0.01)
        assert [type(o) for o in await outcomes(put(enqueuer, b"a"))] == [LogUnavailable]
        log.acknowledge()
        await ticks()
        tasks = put(enqueuer, b"b")
        await ticks()
        log.records[1][2].set_result(1)
        assert await outcomes(tasks) == [None]

    asyncio.run(within())


def test_before_the_log_has_answered_nothing_is_taken() -> None:
    log = HeldLog()
    with pytest.raises(LogUnavailable):
        asyncio.run(put_one(Enqueuer(log, TOPIC, 30), b"a"))
    assert log.records == []


@given(st.integers(1, 60), st.lists(st.integers(0, 70), max_size=40))
def test_no_record_is_larger_than_the_topic_takes_but_for_one_line_alone(limit: int, sizes: list[int]) -> None:
    async def within() -> None:
        log = HeldLog(limit)
        lines = [bytes([65 + n % 26]) * size for n, size in enumerate(sizes)]
        tasks = put(connected(log), *lines)
        await ticks()
        log.acknowledge()
        await asyncio.gather(*tasks)
        assert b"\n".join(log.values()) == b"\n".join(lines)
        assert all(len(value) <= limit or b"\n" not in value for value in log.values())
        for value, following in itertools.pairwise(log.values()):
            assert len(value) + 1 + len(following.partition(b"\n")[0]) > limit, "these would have fitted into one"

    asyncio.run(within())


def test_on_a_real_log_one_line_too_large_fails_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with closing(open_admin(url)) as admin:
        admin.create_topic(TOPIC, PARTITIONS, 1)
    producer = open_producer(url)

    async def within() -> list[BaseException | None]:
        enqueuer = Enqueuer(producer, TOPIC, 30)
        await asyncio.to_thread(enqueuer.connect)
        return await outcomes(put(enqueuer, b"small", b"x" * (MAX_RECORD_BYTES + 1), b"also small"))

    found = asyncio.run(within())
    producer.close(10)
    assert [type(outcome) for outcome in found] == [type(None), RecordTooLarge, type(None)]
    with closing(connect(f"{tmp_path}/log.db")) as connection:
        records, _ = read(connection, {TopicPartition(TOPIC, partition_of(HERE, PARTITIONS)): 0}, 10)
    assert [record.value for record in records] == [b"small", b"also small"]
