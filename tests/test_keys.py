"""Snippet keys: finding one in a request, and the cache between requests and the store."""

import asyncio
import string
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from backends.store.catalog import Catalog
from backends.store.engine import open_engine
from backends.store.keys import Key
from ingest.answers import Refusal
from ingest.cache import ReadThrough
from ingest.keys import KeyCache, find_key
from schemas.ids import key_digest
from schemas.limits import LIMITS
from schemas.privacy import Privacy
from service import metrics

KEY = "aB3" + "x" * 29
OTHER = "o" * 32
ALPHABET = string.ascii_letters + string.digits
HERE = Key("0b0c1c1e-3c1c-4c58-9d43-0c6f8a1f9d11", "production")
AWAY = sa.exc.OperationalError("SELECT", {}, Exception("away"))


@contextmanager
def unauthorized() -> Iterator[None]:
    with pytest.raises(Refusal) as refusal:
        yield
    assert (refusal.value.status, refusal.value.body) == (401, b'{"error":"Unauthorized"}')


@contextmanager
def unavailable() -> Iterator[None]:
    with pytest.raises(Refusal) as refusal:
        yield
    assert (refusal.value.status, refusal.value.body) == (503, b'{"error":"Service unavailable"}')
    assert (b"retry-after", b"5") in refusal.value.headers


# Finding a key


@pytest.mark.parametrize(
    "header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER {KEY}", f"bEaReR   {KEY}  "], ids=lambda h: h.split()[0]
)
def test_the_scheme_word_is_of_any_case(header: str) -> None:
    assert find_key([(b"authorization", header.encode())], b"") == KEY


@pytest.mark.parametrize("query", [f"key={KEY}", f"a=b&key={KEY}&c", f"key=&key={KEY}", f"key={KEY}&key={OTHER}"])
def test_a_key_may_stand_in_the_query(query: str) -> None:
    assert find_key([(b"host", b"e.org")], query.encode()) == KEY


def test_the_header_wins_over_the_query() -> None:
    assert find_key([(b"authorization", f"Bearer {KEY}".encode())], f"key={OTHER}".encode()) == KEY


BAD_HEADERS = ["", "Bearer", "Bearer ", KEY, f"Basic {KEY}", f"Bearer{KEY}", f"Bearer {KEY}x", f"Bearer {KEY[1:]}"]


@pytest.mark.parametrize("header", [*BAD_HEADERS, f"Bearer {KEY} x"])
def test_a_malformed_header_is_unauthorized_whatever_the_query_says(header: str) -> None:
    with unauthorized():
        find_key([(b"authorization", header.encode())], f"key={KEY}".encode())


NO_KEYS = ["", "key", "key=", f"Key={KEY}", f"xkey={KEY}", f"key={KEY}" + "&a=b" * 100]
BAD_KEYS = [KEY[1:], KEY + "x", KEY[1:] + "%00", "%F0" + KEY[1:], KEY[1:] + "é", KEY[1:] + "٣"]


@pytest.mark.parametrize("query", [*NO_KEYS, *(f"key={key}" for key in BAD_KEYS)])
def test_no_key_in_the_query_is_unauthorized(query: str) -> None:
    with unauthorized():
        find_key([], query.encode())


@given(st.binary(max_size=60), st.binary(max_size=60) | st.binary(max_size=60).map(lambda b: b"key=" + b))
def test_no_header_and_no_query_is_a_fault(header: bytes, query: bytes) -> None:
    for headers in ([], [(b"authorization", header)]):
        try:
            assert set(find_key(headers, query)) <= set(ALPHABET)
        except Refusal as refusal:
            assert refusal.status == 401


# The cache


class Store:
    """What the store says of each key, how often it was asked, and for how long it holds an answer back."""

    def __init__(self, **keys: Key) -> None:
        self.keys = {key_digest(key): found for key, found in keys.items()}
        self.questions: list[list[str]] = []
        self.away: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    @property
    def asked(self) -> list[str]:
        return [digest for question in self.questions for digest in question]

    async def find(self, digests: list[str]) -> dict[str, Key]:
        self.questions.append(digests)
        await self.go.wait()
        if self.away is not None:
            raise self.away
        return {digest: self.keys[digest] for digest in digests if digest in self.keys}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Scenario = Callable[[Store, Clock], Awaitable[None]]


def scenario(run: Scenario) -> Callable[[], None]:
    """A test as a coroutine over a store that knows KEY, and a clock that stands still."""

    def test() -> None:
        async def within() -> None:
            await run(Store(**{KEY: HERE}), Clock())

        asyncio.run(asyncio.wait_for(within(), 30))

    test.__name__ = run.__name__
    return test


def cache_of(store: Store, clock: Clock, size: int = 10, flights: int = 10, patience: float = 30) -> KeyCache:
    return KeyCache(store.find, size, flights, 20, renew=10, negative=5, patience=patience, pause=1, clock=clock)


async def until(done: Callable[[], bool]) -> None:
    """Lets the other tasks run until it is so."""
    while not done():  # noqa: ASYNC110
        await asyncio.sleep(0)


@scenario
async def test_a_known_key_is_asked_for_once_while_it_is_fresh(store: Store, clock: Clock) -> None:
    cache = cache_of(store, clock)
    assert await cache.resolve(KEY) == HERE
    clock.now += 19.9
    assert await cache.resolve(KEY) == HERE
    assert len(store.asked) == 1
    clock.now += 0.2
    assert await cache.resolve(KEY) == HERE
    assert len(store.asked) == 2


@scenario
async def test_the_store_is_asked_for_a_digest_never_for_the_key(store: Store, clock: Clock) -> None:
    await cache_of(store, clock).resolve(KEY)
    assert store.asked == [key_digest(KEY)]


@scenario
async def test_an_unknown_key_is_remembered_for_a_while(store: Store, clock: Clock) -> None:
    cache = cache_of(store, clock)
    for _ in range(3):
        with unauthorized():
            await cache.resolve(OTHER)
    assert len(store.asked) == 1
    store.keys[key_digest(OTHER)] = HERE
    clock.now += 5.1
    assert await cache.resolve(OTHER) == HERE


@scenario
async def test_a_revoked_key_is_gone_within_thirty_seconds(store: Store, clock: Clock) -> None:
    cache = cache_of(store, clock)
    await cache.resolve(KEY)
    store.keys.clear()
    clock.now += 28  # with the patience of a request this is still within the documented bound
    with unauthorized():
        await cache.resolve(KEY)
    store.away = AWAY
    clock.now += 6
    with unavailable():
        await cache.resolve(KEY)  # and the store's absence does not bring it back


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are due wait for no others."""
    monkeypatch.setattr("ingest.cache.RENEWAL_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
@scenario
async def test_keys_in_use_are_looked_up_together_before_anybody_has_to_wait(store: Store, clock: Clock) -> None:
    third = "t" * 32
    store.keys |= {key_digest(OTHER): HERE, key_digest(third): HERE}
    cache = cache_of(store, clock)
    for key in (KEY, OTHER, third):
        await cache.resolve(key)
    clock.now += 10.1
    store.go.clear()
    assert [cache.at_hand(key) for key in (KEY, OTHER, KEY)] == [HERE] * 3
    await until(lambda: len(store.questions) == 4)
    assert sorted(store.questions[-1]) == sorted(map(key_digest, (KEY, OTHER)))
    assert cache.at_hand(KEY) == HERE, "nobody waits for the answer"
    store.go.set()
    await until(lambda: cache._renewal.idle)
    clock.now += 9.95
    await until(lambda: cache.at_hand(KEY) == cache.at_hand(OTHER) == HERE)
    assert cache.at_hand(third) is None, "nobody asked for it"
    assert len(store.questions) == 4, "what is new is not asked for"


@pytest.mark.usefixtures("at_once")
@scenario
async def test_a_revoked_key_is_gone_when_it_is_looked_up_ahead_of_time(store: Store, clock: Clock) -> None:
    cache = cache_of(store, clock)
    await cache.resolve(KEY)
    store.keys.clear()
    clock.now += 10.1
    await until(lambda: cache.at_hand(KEY) is None)
    with unauthorized():
        await cache.resolve(KEY)
    assert len(store.questions) == 2


@pytest.mark.usefixtures("at_once")
@scenario
async def test_a_store_that_is_away_when_keys_are_due_takes_none_from_anybody(store: Store, clock: Clock) -> None:
    cache = cache_of(store, clock)
    await cache.resolve(KEY)
    store.away = AWAY
    clock.now += 10.1
    assert cache.at_hand(KEY) == HERE
    await until(lambda: len(store.questions) == 2)
    for _ in range(20):
        assert await cache.resolve(KEY) == HERE
        await asyncio.sleep(0)
    assert len(store.questions) == 2, "it is left alone for a moment"
    store.away = None
    clock.now += 1.1
    assert cache.at_hand(KEY) == HERE
    await until(lambda: len(store.questions) == 3)


@pytest.mark.usefixtures("at_once")
def test_an_answer_to_an_earlier_question_changes_nothing() -> None:
    async def situation() -> None:
        clock, slow = Clock(), asyncio.Event()
        asked: list[float] = []

        async def lookup(keys: list[str]) -> dict[str, str]:
            asked.append(clock.now)
            answer = dict.fromkeys(keys, f"at {clock.now:.0f}")
            if clock.now == 1010:
                await slow.wait()
            return answer

        cache: ReadThrough[str] = ReadThrough(lookup, metrics.key_lookups, 10, renew=10, clock=clock)
        assert await cache.get("k") == "at 1000"
        clock.now = 1010
        assert await cache.get("k") == "at 1000"
        await until(lambda: asked == [1000, 1010])
        clock.now = 1020
        assert await cache.get("k") == "at 1020"
        slow.set()
        await until(lambda: cache._renewal.idle)
        assert cache.at_hand("k") == "at 1020"

    asyncio.run(asyncio.wait_for(situation(), 30))


@scenario
async def test_many_requests_of_one_key_share_a_look_up(store: Store, clock: Clock) -> None:
    store.go.clear()
    cache = cache_of(store, clock)
    waiting = [asyncio.create_task(cache.resolve(KEY)) for _ in range(50)]
    await until(lambda: len(store.asked) > 0)
    store.go.set()
    assert await asyncio.gather(*waiting) == [HERE] * 50
    assert len(store.asked) == 1


@scenario
async def test_a_client_that_goes_away_takes_the_answer_from_nobody_else(store: Store, clock: Clock) -> None:
    store.go.clear()
    cache = cache_of(store, clock)
    first, second = (asyncio.create_task(cache.resolve(KEY)) for _ in range(2))
    await until(lambda: len(store.asked) > 0)
    first.cancel()
    await asyncio.wait([first])
    store.go.set()
    assert await second == HERE
    assert first.cancelled()
    assert len(store.asked) == 1


@pytest.mark.parametrize("error", [AWAY, sa.exc.TimeoutError(), sa.exc.ProgrammingError("", {}, Exception("no table"))])
def test_while_the_store_is_away_a_known_key_goes_on_and_an_unknown_one_is_a_503(error: Exception) -> None:
    @scenario
    async def run(store: Store, clock: Clock) -> None:
        cache = cache_of(store, clock)
        await cache.resolve(KEY)
        store.away = error
        clock.now += 3600
        assert await cache.resolve(KEY) == HERE
        with unavailable():
            await cache.resolve(OTHER)
        store.away = None
        clock.now += 1.1
        with unauthorized():
            await cache.resolve(OTHER)

    run()


@scenario
async def test_a_store_that_failed_is_left_alone_for_a_moment(store: Store, clock: Clock) -> None:
    store.away = AWAY
    cache = cache_of(store, clock)
    for _ in range(10):
        with unavailable():
            await cache.resolve(KEY)
    assert len(store.asked) == 1
    store.away = None
    clock.now += 1.1
    assert await cache.resolve(KEY) == HERE


@scenario
async def test_a_store_that_hangs_does_not_hold_up_a_known_key(store: Store, clock: Clock) -> None:
    cache = cache_of(store, clock, patience=0.01)
    await cache.resolve(KEY)
    store.go.clear()
    clock.now += 21
    assert await cache.resolve(KEY) == HERE
    with unavailable():
        await cache.resolve(OTHER)
    store.keys.clear()
    store.go.set()
    await until(lambda: not cache._in_flight)
    with unauthorized():
        await cache.resolve(KEY)  # the answer that came late counts


@scenario
async def test_look_ups_that_hang_are_bounded(store: Store, clock: Clock) -> None:
    cache = cache_of(store, clock, flights=3, patience=0.01)
    await cache.resolve(KEY)
    store.go.clear()
    clock.now += 21
    for n in range(10):
        with unavailable():
            await cache.resolve(f"{n:032}")
    assert await cache.resolve(KEY) == HERE
    store.go.set()
    await until(lambda: not cache._in_flight)
    assert len(store.asked) == 1 + 3


async def asked_for(store: Store, cache: KeyCache, key: str) -> "asyncio.Task[Key]":
    """A request whose key the store has been asked for, in a question of its own."""
    before = len(store.questions)
    request = asyncio.create_task(cache.resolve(key))
    await until(lambda: len(store.questions) == before + 1)
    return request


@scenario
async def test_keys_that_come_while_the_store_is_asked_are_looked_up_together(store: Store, clock: Clock) -> None:
    keys = [f"{n:032}" for n in range(20)]
    store.keys = {key_digest(key): HERE for key in keys}
    store.go.clear()
    cache = cache_of(store, clock, size=100, flights=100)
    waiting = [await asked_for(store, cache, key) for key in keys[:2]]
    waiting += [asyncio.create_task(cache.resolve(key)) for key in keys[2:]]
    await until(lambda: len(cache._in_flight) == 20)
    assert len(store.questions) == 2, "one that hangs holds up nobody, and two are enough"
    store.go.set()
    assert await asyncio.gather(*waiting) == [HERE] * 20
    assert [len(question) for question in store.questions] == [1, 1, 18]
    await until(lambda: cache._questions.idle)
    assert await cache.resolve(keys[0]) == HERE
    with unauthorized():
        await cache.resolve(OTHER)  # and who comes when nothing is asked begins anew
    assert len(store.questions) == 4


@scenario
async def test_more_keys_than_a_question_may_have_are_asked_about_one_question_after_the_other(
    store: Store, clock: Clock
) -> None:
    keys = [f"{n:032}" for n in range(5)]
    questions = []

    async def lookup(asked: list[str]) -> dict[str, str]:
        questions.append(asked)
        return {key: f"of {key}" for key in asked}

    cache: ReadThrough[str] = ReadThrough(lookup, metrics.key_lookups, 10, at_once=1, together=2, clock=clock)
    assert await asyncio.gather(*map(cache.get, keys)) == [f"of {key}" for key in keys]
    assert questions == [keys[:2], keys[2:4], keys[4:]]


@scenario
async def test_a_question_that_hangs_holds_up_only_those_it_asks_for(store: Store, clock: Clock) -> None:
    answered = asyncio.Event()

    async def find(digests: list[str]) -> dict[str, Key]:
        if key_digest(OTHER) in digests:
            await answered.wait()
        return await store.find(digests)

    cache = KeyCache(find, clock=clock)
    hanging = asyncio.create_task(cache.resolve(OTHER))
    await until(lambda: bool(cache._in_flight))
    await asyncio.sleep(0)
    for n in range(5):
        with unauthorized():
            await cache.resolve(f"{n:032}")
    answered.set()
    with unauthorized():
        await hanging


@scenario
async def test_those_that_waited_behind_a_failure_do_not_ask_a_store_that_is_away(store: Store, clock: Clock) -> None:
    store.away = AWAY
    store.go.clear()
    cache = cache_of(store, clock, flights=100)
    waiting = [await asked_for(store, cache, f"{n:032}") for n in range(2)]
    waiting += [asyncio.create_task(cache.resolve(f"{n:032}")) for n in range(2, 50)]
    await until(lambda: len(cache._in_flight) == 50)
    store.go.set()
    for task in waiting:
        with unavailable():
            await task
    assert len(store.questions) == 2


@scenario
async def test_keys_are_kept_up_to_a_bound_and_the_least_used_goes_first(store: Store, clock: Clock) -> None:
    cache = cache_of(store, clock, size=3)
    keys = [f"{n:032}" for n in range(4)]
    store.keys = {key_digest(key): HERE for key in keys}
    for key in [*keys[:3], keys[0], keys[3]]:
        await cache.resolve(key)
    assert list(cache._known) == [keys[2], keys[0], keys[3]]
    for key in (keys[2], keys[0], keys[3]):
        await cache.resolve(key)
    assert len(store.asked) == 4


@scenario
async def test_guessing_keys_does_not_push_out_the_known_ones(store: Store, clock: Clock) -> None:
    cache = cache_of(store, clock, size=3)
    await cache.resolve(KEY)
    for n in range(20):
        with unauthorized():
            await cache.resolve(f"{n:032}")
    assert len(cache._unknown) == 3
    assert await cache.resolve(KEY) == HERE
    assert len(store.asked) == 21


def test_a_fault_of_the_look_up_is_logged_and_not_taken_for_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    @scenario
    async def run(store: Store, clock: Clock) -> None:
        store.away = ZeroDivisionError()
        with unavailable():
            await cache_of(store, clock).resolve(KEY)

    run()
    assert "look-up failed" in caplog.text


# The store


def test_the_store_tells_many_keys_apart_each_with_what_its_organisation_has_of_its_own(store_url: str) -> None:
    engine = open_engine(store_url)
    catalog = Catalog(engine)
    plain, own, revoked = (catalog.create_organisation(name) for name in ("Plain", "Own", "Revoked"))
    keys = {name: catalog.create_key(of, env) for name, of, env in (("p", plain, None), ("o", own, "test"))}
    second, gone = catalog.create_key(own, None), catalog.create_key(revoked, None)
    catalog.set_limit(own, "events", 7)
    catalog.set_limit(own, "flows", 8)
    catalog.set_privacy(own, Privacy("drop", "anonymous"))
    catalog.revoke_key(gone)
    digests = [key_digest(key) for key in (keys["p"], keys["o"], second, gone, "u" * 32)]
    limits = LIMITS | {"events": 7, "flows": 8}
    assert catalog.find_keys(digests) == {
        digests[0]: Key(plain),
        digests[1]: Key(own, "test", limits, Privacy("drop", "anonymous")),
        digests[2]: Key(own, None, limits, Privacy("drop", "anonymous")),
    }
    assert catalog.find_keys([]) == {}
    engine.dispose()
