"""Both places where requests are counted, by one suite: fixed windows that begin with their first request."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import backends.limits.limiter
import backends.limits.redis
from backends.limits import Limiter, Limits, MemoryLimits, Window
from backends.limits.redis import PREFIX, RedisLimits
from schemas.limits import Verdict

Open = Callable[..., Limits]


@pytest.fixture(params=["memory", "redis"])
def open_limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Takes what both take: the seconds of a window and the clock."""
    if request.param == "memory":
        return MemoryLimits
    monkeypatch.setattr(backends.limits.redis, "ANSWER_SECONDS", 20.0)  # a busy machine is no outage
    url = request.getfixturevalue("redis_url")
    return lambda **options: RedisLimits(url, **options)


@asynccontextmanager
async def closing(limits: Limits) -> AsyncIterator[Limiter]:
    limiter = Limiter(limits)
    try:
        yield limiter
    finally:
        await limiter.close()


def new_key() -> str:
    return f"test:{uuid.uuid4()}"


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 30
    while not await done():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.02)


def test_the_first_so_many_are_within_and_no_more(open_limits: Open) -> None:
    async def situation() -> list[Verdict]:
        key = new_key()
        async with closing(open_limits()) as limiter:
            one_by_one = [await limiter.hit(key, 5) for _ in range(3)]
            return one_by_one + list(await asyncio.gather(*(limiter.hit(key, 5) for _ in range(4))))

    before = time.time()
    verdicts = asyncio.run(situation())
    assert [v.remaining for v in verdicts] == [4, 3, 2, 1, 0, 0, 0]
    assert [v.retry_after > 0 for v in verdicts] == [False] * 5 + [True] * 2
    assert all(0 < v.retry_after <= 60 for v in verdicts[5:])
    assert all(v.limit == 5 and before + 59 < v.reset <= time.time() + 61 for v in verdicts)


def test_keys_are_counted_apart_in_one_question(open_limits: Open) -> None:
    async def situation() -> Any:
        one, other = new_key(), new_key()
        limits = open_limits()
        found = [await limits.add({one: 3, other: 1}), await limits.add({other: 2}), await limits.add({one: 0})]
        await limits.close()
        return one, other, found

    one, other, found = asyncio.run(situation())
    used = [{key: window.used for key, window in windows.items()} for windows in found]
    assert used == [{one: 3, other: 1}, {other: 3}, {one: 3}]


def test_a_look_costs_nothing(open_limits: Open) -> None:
    async def situation() -> list[Verdict]:
        key = new_key()
        async with closing(open_limits()) as limiter:
            verdicts = [await limiter.hit(key, 2, hits) for hits in (0, 1, 0, 1, 1, 0)]
            return verdicts + list(await asyncio.gather(limiter.hit(key, 9), limiter.hit(key, 9, 0)))

    verdicts = asyncio.run(situation())
    assert [v.remaining for v in verdicts] == [2, 1, 1, 0, 0, 0, 5, 5]


def test_a_window_ends_for_all_that_is_in_it_and_the_next_request_begins_another(open_limits: Open) -> None:
    async def situation() -> None:
        key = new_key()
        limits = open_limits(seconds=0.3)
        first = (await limits.add({key: 7}))[key]
        assert first.used == 7

        async def begun_anew() -> bool:
            return (await limits.add({key: 1}))[key].used == 1

        await until(begun_anew)
        assert time.time() > first.ends_at - 0.01  # Redis rounds to milliseconds
        await limits.close()

    asyncio.run(situation())


def test_a_window_of_requests_that_go_on_is_not_prolonged(open_limits: Open) -> None:
    async def situation() -> list[float]:
        key = new_key()
        limits = open_limits()
        ends = [(await limits.add({key: 1}))[key].ends_at for _ in range(20)]
        await limits.close()
        return ends

    ends = asyncio.run(situation())
    assert max(ends) - min(ends) < 5  # of 60 seconds


@pytest.mark.parametrize("open_limits", ["redis"], indirect=True)
def test_windows_that_two_processes_count_in_are_one(open_limits: Open) -> None:
    async def situation() -> list[Verdict]:
        key = new_key()
        async with closing(open_limits()) as one, closing(open_limits()) as other:
            return list(await asyncio.gather(*(limiter.hit(key, 300) for _ in range(200) for limiter in (one, other))))

    verdicts = asyncio.run(situation())
    assert sum(not v.retry_after for v in verdicts) == 300
    assert sorted(v.remaining for v in verdicts) == [0] * 100 + list(range(300))


# Redis alone


def test_a_key_that_has_lost_its_time_to_live_gets_one(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.limits.redis, "ANSWER_SECONDS", 20.0)

    async def situation() -> None:
        key = new_key()
        limits = RedisLimits(redis_url)
        async with redis.asyncio.Redis.from_url(redis_url) as server:
            await server.set(PREFIX + key, 41)
            assert await server.pttl(PREFIX + key) == -1
            assert (await limits.add({key: 1}))[key].used == 42
            assert 0 < await server.pttl(PREFIX + key) <= 60_000
        await limits.close()

    asyncio.run(situation())


def test_a_server_that_has_forgotten_the_script_is_taught_it_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.limits.redis, "ANSWER_SECONDS", 20.0)

    async def situation() -> None:
        key = new_key()
        limits = RedisLimits(redis_url)
        async with redis.asyncio.Redis.from_url(redis_url) as server:
            for used in (1, 2, 3):
                await server.script_flush()
                assert (await limits.add({key: 1}))[key].used == used
        await limits.close()

    asyncio.run(situation())


def test_a_thousand_requests_at_once_take_few_calls_and_one_connection(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.limits.redis, "ANSWER_SECONDS", 20.0)

    async def situation() -> tuple[int, int]:
        keys = [new_key() for _ in range(10)]
        server = redis.asyncio.Redis.from_url(redis_url)
        async with server, closing(RedisLimits(redis_url)) as limiter:
            await limiter.hit(new_key(), 1)
            before = await _totals(server)
            await asyncio.gather(*(limiter.hit(key, 1000) for key in keys * 100))
            after = await _totals(server)
        return after[0] - before[0], after[1] - before[1]

    calls, connections = asyncio.run(situation())
    assert (calls, connections) == (1, 0)


async def _totals(server: redis.asyncio.Redis) -> tuple[int, int]:
    """Calls of the script and connections, since the server began."""
    calls = (await server.info("commandstats"))["cmdstat_evalsha"]["calls"]
    return calls, (await server.info("stats"))["total_connections_received"]


# Memory alone, where the clock can be held


@pytest.mark.parametrize(("company", "kept"), [(2, True), (10**6, False)], ids=["many", "few"])
def test_the_next_question_is_kept_for_company_after_many_requests_and_not_after_few(
    company: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.limits.limiter, "COMPANY", company)

    async def situation() -> bool:
        limits = MemoryLimits()
        monkeypatch.setattr(limits, "pace", 3600.0, raising=False)
        async with closing(limits) as limiter:
            await asyncio.gather(limiter.hit("a", 5), limiter.hit("b", 5))
            third = limiter.hit("a", 5)
            try:
                async with asyncio.timeout(0.1 if kept else 20):
                    await asyncio.shield(third)
            except TimeoutError:
                return True
            return False

    assert asyncio.run(situation()) == kept


class Clock:
    def __init__(self, at: float = 1_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


STEPS = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 10), st.sampled_from([59.999, 60.0, 60.001])),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 4), min_size=1),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS)
def test_windows_are_those_of_the_model(steps: list[tuple[float, dict[str, int]]]) -> None:
    """The model keeps every request, and finds the window of each from the beginning."""

    async def situation() -> None:
        clock, history = Clock(), dict[str, list[tuple[float, int]]]()
        limits = MemoryLimits(clock=clock)
        for passed, hits in steps:
            clock.at += passed
            found = await limits.add(hits)
            for key, count in hits.items():
                history.setdefault(key, []).append((clock.at, count))
                assert found[key] == _model(history[key]), key

    asyncio.run(situation())


def _model(history: list[tuple[float, int]]) -> Window:
    began, used = history[0][0], 0
    for at, count in history:
        if at >= began + 60:
            began, used = at, 0
        used += count
    return Window(used, began + 60)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 4), min_size=1), min_size=1, max_size=10))
def test_within_one_window_both_places_count_alike(redis_url: str, steps: list[dict[str, int]]) -> None:
    async def situation() -> None:
        suffix = uuid.uuid4().hex
        shared, own = RedisLimits(redis_url), MemoryLimits()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backends.limits.redis, "ANSWER_SECONDS", 20.0)
            for hits in steps:
                named = {key + suffix: count for key, count in hits.items()}
                one, other = await shared.add(named), await own.add(named)
                assert {k: w.used for k, w in one.items()} == {k: w.used for k, w in other.items()}
        await shared.close()

    asyncio.run(situation())


def test_after_the_windows_end_requests_pass_again() -> None:
    async def situation() -> None:
        clock = Clock(1_000_000.25)
        limiter = Limiter(MemoryLimits(clock=clock), clock)
        assert await limiter.hit("key", 1) == Verdict(1, 0, 1_000_061, 0)
        clock.at += 10
        refused = await limiter.hit("key", 1)
        assert refused == Verdict(1, 0, 1_000_061, 50)
        clock.at += refused.retry_after
        assert await limiter.hit("key", 1) == Verdict(1, 0, 1_000_121, 0)

    asyncio.run(situation())


def test_memory_is_bounded_by_windows_that_are_over_and_by_number() -> None:
    async def situation() -> None:
        clock = Clock()
        limits = MemoryLimits(size=100, clock=clock)
        for n in range(1000):
            await limits.add({f"stranger {n}": 1, "busy": 1})
        assert len(limits._windows) == 100
        assert (await limits.add({"busy": 0}))["busy"].used == 1000
        clock.at += 60
        await limits.add({"new": 1})
        assert list(limits._windows) == ["new"]

    asyncio.run(situation())
