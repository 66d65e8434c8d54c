"""The JWKS document: found keys, rotated keys, and an endpoint that is away, slow, hostile or asked too often."""

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from readers import jwks
from readers.jwks import FRESH_SECONDS, REFETCH_SECONDS, JwksKeys
from readers.keys import KeysAway, UnknownKey
from service.settings import SettingsError
from tests.issuer import Jwks, SigningKey, serving_jwks

ENOUGH_SECONDS = 20.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey("ES256", "first")


@pytest.fixture
def served(key: SigningKey) -> Iterator[Jwks]:
    with serving_jwks(key) as found:
        yield found


def made(served: Jwks) -> tuple[JwksKeys, Clock]:
    clock = Clock()
    return JwksKeys(served.url, "ES256", clock), clock


async def unknown(keys: JwksKeys, kid: str) -> bool:
    try:
        await keys(kid)
    except UnknownKey:
        return True
    return False


async def until_unknown(keys: JwksKeys, kid: str) -> None:
    deadline = time.monotonic() + ENOUGH_SECONDS
    while not await unknown(keys, kid):
        assert time.monotonic() < deadline, f"{kid} stayed known"
        await asyncio.sleep(0.01)


def test_keys_are_fetched_once_and_kept(served: Jwks, key: SigningKey) -> None:
    async def run() -> None:
        keys, clock = made(served)
        for _ in range(100):
            assert await keys("first") == key.private.public_key()
            clock.now += 1
        assert served.fetches == 1

    asyncio.run(run())


def test_all_who_ask_at_once_share_one_fetch(served: Jwks) -> None:
    async def run() -> None:
        keys, _ = made(served)
        found = await asyncio.gather(*(keys("first") for _ in range(50)))
        assert len(found) == 50
        assert served.fetches == 1

    asyncio.run(run())


def test_a_rotated_key_is_found_at_once(served: Jwks, key: SigningKey) -> None:
    async def run() -> None:
        keys, clock = made(served)
        await keys("first")
        clock.now += REFETCH_SECONDS + 1
        second = SigningKey("ES256", "second")
        served.publish(key, second)
        assert await keys("second") == second.private.public_key()
        assert served.fetches == 2

    asyncio.run(run())


def test_a_flood_of_unknown_key_ids_fetches_no_more_than_the_bound(served: Jwks) -> None:
    async def run() -> None:
        keys, clock = made(served)
        seconds = 300
        for second in range(seconds):
            found = await asyncio.gather(*(unknown(keys, f"{second}.{n}") for n in range(5)))
            assert all(found)
            clock.now += 1
        assert 1 < served.fetches <= seconds / REFETCH_SECONDS + 1

    asyncio.run(run())


def test_a_flood_does_not_keep_a_rotated_key_from_being_found(served: Jwks, key: SigningKey) -> None:
    async def run() -> None:
        keys, clock = made(served)
        await unknown(keys, "flood")  # has just used up the fetch
        second = SigningKey("ES256", "second")
        served.publish(key, second)
        waited = 0
        while await unknown(keys, "second"):
            await unknown(keys, f"flood {waited}")
            clock.now += 1
            waited += 1
            assert waited <= REFETCH_SECONDS + 1

    asyncio.run(run())


def test_a_key_taken_out_of_the_document_is_refused_after_the_next_refresh(served: Jwks) -> None:
    async def run() -> None:
        keys, clock = made(served)
        await keys("first")
        served.publish(SigningKey("ES256", "second"))
        clock.now += FRESH_SECONDS - 1
        assert not await unknown(keys, "first")
        clock.now += 2
        await until_unknown(keys, "first")
        assert served.fetches == 2

    asyncio.run(run())


def test_a_document_without_keys_says_that_none_is_valid(served: Jwks) -> None:
    async def run() -> None:
        keys, clock = made(served)
        await keys("first")
        served.publish()
        clock.now += FRESH_SECONDS + 1
        await until_unknown(keys, "first")

    asyncio.run(run())


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b"{}", b'{"keys": 5}', b'{"keys": null}', b"\xff", b"[" * 5000], ids=repr
)
def test_known_keys_outlive_a_document_that_is_none(served: Jwks, body: bytes) -> None:
    async def run() -> None:
        keys, clock = made(served)
        await keys("first")
        served.body = body
        clock.now += FRESH_SECONDS + 1
        assert not await unknown(keys, "first")
        await asyncio.to_thread(served.wait_fetched, 2)
        with pytest.raises(KeysAway):  # waits for that fetch, so it is over
            await keys("second")
        assert not await unknown(keys, "first")

    asyncio.run(run())


@pytest.mark.parametrize("status", [301, 404, 500, 503])
def test_known_keys_outlive_an_endpoint_that_is_away_and_new_ones_are_found_when_it_is_back(
    served: Jwks, key: SigningKey, status: int
) -> None:
    async def run() -> None:
        keys, clock = made(served)
        await keys("first")
        second = SigningKey("ES256", "second")
        served.publish(key, second)
        served.status = status
        clock.now += 10 * FRESH_SECONDS
        for _ in range(5):
            assert not await unknown(keys, "first")
            with pytest.raises(KeysAway):
                await keys("second")
        assert served.fetches == 2
        served.status = 200
        clock.now += REFETCH_SECONDS + 1
        assert await keys("second") == second.private.public_key()

    asyncio.run(run())


def test_where_nothing_listens_nothing_can_be_told() -> None:
    async def run() -> None:
        with serving_jwks() as gone:
            url = gone.url
        keys = JwksKeys(url, "ES256")
        with pytest.raises(KeysAway):
            await keys("first")

    asyncio.run(run())


def test_a_known_key_does_not_wait_for_an_endpoint_that_hangs(served: Jwks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 10 * ENOUGH_SECONDS)

    async def run() -> None:
        keys, clock = made(served)
        await keys("first")
        served.let_go.clear()
        clock.now += FRESH_SECONDS + 1
        waiting = asyncio.create_task(unknown(keys, "unknown"))
        await asyncio.to_thread(served.wait_fetched, 2)
        async with asyncio.timeout(ENOUGH_SECONDS):
            for _ in range(20):
                assert not await unknown(keys, "first")
        assert not waiting.done()
        served.let_go.set()
        assert await waiting
        assert served.fetches == 2

    asyncio.run(run())


@pytest.mark.parametrize("how", ["hangs", "drips"])
def test_an_endpoint_that_hangs_or_drips_is_given_up(served: Jwks, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.3)

    async def run() -> None:
        keys, _ = made(served)
        if how == "hangs":
            served.let_go.clear()
        else:
            served.drips = True
            served.headers = {"Content-Length": "200000"}
        async with asyncio.timeout(ENOUGH_SECONDS):
            with pytest.raises(KeysAway):
                await keys("first")

    asyncio.run(run())


def test_one_who_goes_away_does_not_take_the_fetch_from_the_others(served: Jwks) -> None:
    async def run() -> None:
        keys, _ = made(served)
        served.let_go.clear()
        gone = asyncio.create_task(keys("first"))
        stays = asyncio.create_task(keys("first"))
        await asyncio.to_thread(served.wait_fetched, 1)
        gone.cancel()
        served.let_go.set()
        assert await stays is not None
        assert served.fetches == 1

    asyncio.run(run())


def test_a_document_that_is_too_large_is_not_read_whole(served: Jwks) -> None:
    async def run(body: bytes, headers: dict[str, str]) -> None:
        keys, _ = made(served)
        served.body, served.headers = body, headers
        with pytest.raises(KeysAway):
            await keys("first")

    padded = served.body[:-1] + b" " * jwks.MAX_DOCUMENT_BYTES + b"}"
    asyncio.run(run(padded, {}))
    asyncio.run(run(gzip.compress(padded), {"Content-Encoding": "gzip"}))


def test_a_redirect_is_not_followed(served: Jwks) -> None:
    async def run() -> None:
        with serving_jwks(SigningKey("ES256", "theirs")) as elsewhere:
            keys, _ = made(served)
            served.status, served.headers = 302, {"Location": elsewhere.url}
            with pytest.raises(KeysAway):
                await keys("theirs")
            assert elsewhere.fetches == 0

    asyncio.run(run())


def test_only_signing_keys_of_the_configured_algorithm_are_taken(served: Jwks, key: SigningKey) -> None:
    others: list[Any] = [
        *(5, None, "key", [], {}, {"kty": ["RSA"]}, {"kty": "RSA", "alg": ["RS256"], "kid": "list"}),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "ES256"},
        {"kty": "EC", "crv": "P-256", "x": 1, "y": 2, "kid": "numbers"},
        SigningKey("RS256", "rsa").jwk(),
        SigningKey("EdDSA", "ed").jwk(),
        SigningKey("ES256", "encryption").jwk() | {"use": "enc"},
        SigningKey("ES256").jwk() | {"kid": ["list"]},
    ]
    served.body = json.dumps({"keys": [*others, key.jwk()]}).encode()

    async def run() -> None:
        keys, _ = made(served)
        assert await keys("first") == key.private.public_key()
        for kid in ("secret", "numbers", "rsa", "ed", "encryption", "list"):
            assert await unknown(keys, kid)

    asyncio.run(run())


def test_the_one_key_of_a_document_without_key_ids_is_for_tokens_without_one(served: Jwks, key: SigningKey) -> None:
    served.body = json.dumps({"keys": [{k: v for k, v in key.jwk().items() if k != "kid"}]}).encode()

    async def run() -> None:
        keys, _ = made(served)
        assert await keys(None) == key.private.public_key()
        assert await unknown(keys, "first")

    asyncio.run(run())


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/jwks", "host/jwks", ""])
def test_an_address_that_is_not_http_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="ZENSTEP_JWKS_URL"):
        JwksKeys(url, "ES256")
