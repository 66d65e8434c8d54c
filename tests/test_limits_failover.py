"""Limits while the shared store is away: nobody is refused or kept waiting for it, and it comes back by itself."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping

import pytest
import redis

import backends.limits.redis
from backends.limits import Limiter, LimitsAway, MemoryLimits, Window
from backends.limits.failover import FailoverLimits
from backends.limits.redis import RedisLimits
from schemas.limits import Verdict
from tests.servers.ports import free_port
from tests.servers.redis import Redis

LOGGER = "backends.limits.failover"


async def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.02)


class Told(list[int]):
    """What the failover has told, as a gauge would sum it up."""

    def away(self) -> bool:
        return sum(self) == 1


class Scripted:
    """A shared store that answers from a MemoryLimits, or fails as it is told to."""

    pace = 0.0

    def __init__(self) -> None:
        self.own = MemoryLimits()
        self.error: Exception | None = None
        self.asked = 0

    async def add(self, hits: Mapping[str, int]) -> Mapping[str, Window]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return await self.own.add(hits)

    async def ping(self) -> None:
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("error", [LimitsAway("no answer"), RuntimeError("a fault"), KeyError("key")], ids=repr)
def test_whatever_the_store_raises_every_request_has_its_verdict(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def situation() -> None:
        shared, told = Scripted(), Told()
        limiter = Limiter(FailoverLimits(shared, MemoryLimits(), told.append, pause=0.01))
        assert [v.remaining for v in await asyncio.gather(*(limiter.hit("key", 10) for _ in range(3)))] == [9, 8, 7]
        shared.error = error
        # The count goes on where the store's ended.
        assert [v.remaining for v in await asyncio.gather(*(limiter.hit("key", 10) for _ in range(3)))] == [6, 5, 4]
        assert told == [1]
        for _ in range(4):
            await limiter.hit("key", 10)
        assert (await limiter.hit("key", 10)).retry_after > 0
        assert shared.asked == 2  # by no request but the one that found it away
        shared.error = None
        await until(lambda: not told.away())
        assert (await limiter.hit("key", 10)).remaining == 6  # what was counted alone is not added
        assert told == [1, -1]
        await limiter.close()

    with caplog.at_level(logging.WARNING, LOGGER):
        asyncio.run(situation())
    said = [record.message for record in caplog.records if record.name == LOGGER and record.levelname == "WARNING"]
    assert said == ["limits are counted by this process alone", "limits are counted together again"]


def test_an_exception_of_limits_themselves_reaches_every_waiting_request_and_not_the_next() -> None:
    async def situation() -> None:
        shared = Scripted()
        shared.error = RuntimeError("a fault")
        limiter = Limiter(shared)
        found = await asyncio.gather(*(limiter.hit(key, 10) for key in "aabc"), return_exceptions=True)
        assert found == [shared.error] * 4
        shared.error = None
        assert (await limiter.hit("a", 10)).remaining == 9
        await limiter.close()

    asyncio.run(situation())


def test_requests_whose_clients_are_gone_count_and_hold_nobody_up() -> None:
    class Slow(Scripted):
        let_go = asyncio.Event()

        async def add(self, hits: Mapping[str, int]) -> Mapping[str, Window]:
            await self.let_go.wait()
            return await super().add(hits)

    async def situation() -> None:
        shared = Slow()
        limiter = Limiter(shared)

        async def request() -> Verdict:
            return await limiter.hit("key", 10)

        tasks = [asyncio.create_task(request()) for _ in range(4)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        late = asyncio.create_task(request())
        await asyncio.sleep(0)
        for gone in (tasks[0], tasks[2]):
            gone.cancel()
        shared.let_go.set()
        found = await asyncio.gather(*tasks, late, return_exceptions=True)
        left = [v.remaining if isinstance(v, Verdict) else None for v in found]
        assert left == [None, 8, None, 6, 5]
        assert shared.asked == 2
        await limiter.close()

    asyncio.run(situation())


def test_a_redis_that_takes_connections_and_never_answers_holds_one_question_up_for_a_moment() -> None:
    async def situation() -> None:
        gone: list[asyncio.StreamWriter] = []

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            gone.append(writer)
            await reader.read()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        told = Told()
        limiter = Limiter(FailoverLimits(RedisLimits(f"redis://127.0.0.1:{port}/0"), MemoryLimits(), told.append))
        async with asyncio.timeout(30):  # without bounds of its own it would be for ever
            found = await asyncio.gather(*(limiter.hit("key", 300) for _ in range(400)))
        assert sum(not v.retry_after for v in found) == 300
        assert told == [1]
        await limiter.close()
        assert told == [1, -1]
        for writer in gone:
            writer.close()
        server.close()

    asyncio.run(situation())


def test_no_redis_at_all_is_an_outage_like_any_other() -> None:
    async def situation() -> None:
        told = Told()
        limits = FailoverLimits(RedisLimits(f"redis://127.0.0.1:{free_port()}/0"), MemoryLimits(), told.append)
        assert (await limits.add({"key": 3}))["key"].used == 3
        assert (await limits.add({"key": 3}))["key"].used == 6
        assert told == [1]
        await limits.close()

    asyncio.run(situation())


def test_a_redis_that_refuses_the_password_or_writing_is_away(private_redis: Redis) -> None:
    async def situation(url: str) -> None:
        told = Told()
        limits = FailoverLimits(RedisLimits(url), MemoryLimits(), told.append)
        assert (await limits.add({"key": 3}))["key"].used == 3
        assert told == [1]
        await limits.close()

    asyncio.run(situation(private_redis.url.replace("redis://", "redis://:wrong@")))
    with redis.Redis.from_url(private_redis.url) as client:
        client.config_set("min-replicas-to-write", 1)
    asyncio.run(situation(private_redis.url))


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_redis_that_is_gone_and_comes_back_is_used_again(
    private_redis: Redis, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backends.limits.redis, "ANSWER_SECONDS", 5.0)  # a busy machine is no outage

    async def situation() -> None:
        key, told, asked_in_vain = str(uuid.uuid4()), Told(), asyncio.Event()

        class Noting(RedisLimits):
            async def ping(self) -> None:
                try:
                    await super().ping()
                except LimitsAway:
                    asked_in_vain.set()
                    raise

        limiter = Limiter(FailoverLimits(Noting(private_redis.url), MemoryLimits(), told.append, pause=0.05))
        for outage in (1, 2):
            assert (await limiter.hit(f"{key}{outage}", 100)).remaining == 99
            assert not told.away()
            await asyncio.to_thread(getattr(private_redis, how))
            assert [(await limiter.hit(f"{key}{outage}", 100)).remaining for _ in range(3)] == [98, 97, 96]
            assert told.away()
            await asyncio.wait_for(asked_in_vain.wait(), 30)
            asked_in_vain.clear()
            await asyncio.to_thread(private_redis.start)
            await until(lambda: not told.away())
            # A Redis that has lost its counts begins anew.
            assert (await limiter.hit(f"{key}{outage}", 100)).remaining == 99
        assert told == [1, -1, 1, -1]
        await limiter.close()

    with caplog.at_level(logging.INFO, LOGGER):
        asyncio.run(situation())
    said = [record.message for record in caplog.records if record.name == LOGGER]
    assert said == ["limits are counted by this process alone", "limits are counted together again"] * 2
