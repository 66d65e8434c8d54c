"""Who is told what has come of something: each once, whatever the others make of it."""

import asyncio
import logging

import pytest

from backends.limits import Limiter, MemoryLimits
from backends.log import LogUnavailable
from backends.telling import Waiting, into
from schemas.limits import Verdict


def test_a_future_has_what_was_told() -> None:
    async def situation() -> None:
        loop = asyncio.get_running_loop()
        good: asyncio.Future[int] = loop.create_future()
        bad: asyncio.Future[int] = loop.create_future()
        gone: asyncio.Future[int] = loop.create_future()
        gone.cancel()
        Waiting(into(good)).tell(7)
        Waiting(into(bad)).tell(LogUnavailable("away"))
        Waiting(into(gone)).tell(7)
        assert await good == 7
        with pytest.raises(LogUnavailable):
            await bad
        assert gone.cancelled()

    asyncio.run(situation())


def test_what_is_told_twice_is_heard_once() -> None:
    heard: list[int | Exception] = []
    waiting: Waiting[int] = Waiting(heard.append)
    waiting.tell(7)
    waiting.tell(LogUnavailable("too late"))
    assert heard == [7]


def test_a_fault_of_one_is_none_of_the_others_who_are_told_together(caplog: pytest.LogCaptureFixture) -> None:
    def fault(verdict: Verdict | Exception) -> None:
        raise RuntimeError("planted")

    async def situation() -> None:
        limiter = Limiter(MemoryLimits())
        limiter.count("key", 10, 1, fault)
        assert (await limiter.hit("key", 10)).remaining == 8

    asyncio.run(situation())
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "fault of one who was told"
    ]
