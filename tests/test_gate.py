"""Whose request it is by its address: behind proxies, behind none, and with an X-Forwarded-For that lies."""

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from backends.limits import Limiter, MemoryLimits
from backends.store.keys import Key
from ingest.answers import Refusal
from ingest.gate import Gate
from ingest.keys import KeyCache
from schemas.ids import key_digest
from schemas.limits import LIMITS
from service.clients import MAX_HOPS, Clients, networks

SECRET = "a secret of the gate's tests"
TRUSTED = "10.0.0.0/8, fd00::/8, 192.0.2.7"
PROXY, OTHER_PROXY, CLIENT = "10.1.2.3", "192.0.2.7", "203.0.113.9"


def scope(peer: str | None = CLIENT, *forwarded: str, headers: list[tuple[bytes, bytes]] | None = None) -> Any:
    more = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    client = None if peer is None else (peer, 50_000)
    return {"client": client, "headers": [*(headers or []), *more], "query_string": b"", "method": "POST"}


def address(peer: str | None, *forwarded: str, trusted: str = TRUSTED) -> str | None:
    found = Clients(SECRET, networks(trusted)).address(scope(peer, *forwarded))
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        (CLIENT, [], CLIENT),
        (CLIENT, ["198.51.100.1"], CLIENT),  # anybody can write that
        (PROXY, [], PROXY),
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f"198.51.100.1, {CLIENT}"], CLIENT),  # the client wrote the first itself
        (PROXY, [f"{PROXY}, {CLIENT}"], CLIENT),  # and may know what is trusted
        (PROXY, [f"198.51.100.1, {CLIENT}, {OTHER_PROXY}"], CLIENT),
        (PROXY, ["198.51.100.1", CLIENT, OTHER_PROXY], CLIENT),  # headers that follow each other are one list
        (PROXY, [f"  {CLIENT}\t,{OTHER_PROXY} "], CLIENT),
        (PROXY, [f"{CLIENT}:4711"], CLIENT),
        (PROXY, ["[2001:db8::1]:4711"], "2001:db8::1"),
        (PROXY, ["[2001:db8::1]"], "2001:db8::1"),
        (PROXY, ["2001:db8::1"], "2001:db8::1"),
        (PROXY, ["fe80::1%eth0"], "fe80::1"),
        (PROXY, [f"::ffff:{CLIENT}"], CLIENT),
        (f"::ffff:{PROXY}", [f"[::ffff:{CLIENT}]:4711"], CLIENT),
        ("fd00::1", [f"{CLIENT}, ::ffff:{OTHER_PROXY}"], CLIENT),
        (PROXY, [f"{OTHER_PROXY}, {PROXY}"], OTHER_PROXY),  # a client inside the trusted networks
        (PROXY, ["unknown"], PROXY),
        (PROXY, [f"{CLIENT}, unknown"], PROXY),  # what is left of garbage is hearsay
        (PROXY, [f"{CLIENT}, garbage, {OTHER_PROXY}"], OTHER_PROXY),
        (PROXY, [f"{CLIENT},"], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, ["203.0.113.09"], PROXY),
        (PROXY, ["1.2.3.4.5", "é"], PROXY),
        (None, [CLIENT], None),  # a peer without an address is nobody to trust
        ("", [CLIENT], None),
        ("testclient", [CLIENT], None),
    ],
)
def test_the_client_is_the_right_most_address_that_is_no_trusted_proxys(
    peer: str | None, forwarded: list[str], found: str | None
) -> None:
    assert address(peer, *forwarded) == found


def test_without_trusted_proxies_the_header_is_not_read() -> None:
    for peer in (PROXY, CLIENT, "127.0.0.1", "::1"):
        assert address(peer, "198.51.100.1", trusted="") == peer


def test_a_header_of_proxies_without_end_is_read_to_a_bound() -> None:
    assert address(PROXY, ", ".join([CLIENT, *[PROXY] * 10_000])) == PROXY
    assert address(PROXY, ", ".join([CLIENT, *[PROXY] * (MAX_HOPS - 1)])) == CLIENT


@given(st.lists(st.text(st.characters(max_codepoint=255)), max_size=5), st.sampled_from([PROXY, CLIENT, "fd00::1"]))
def test_whatever_the_header_holds_there_is_an_address(forwarded: list[str], peer: str) -> None:
    found = address(peer, *forwarded)
    assert found is not None and ip_address(found)
    if peer == CLIENT:
        assert found == CLIENT


def test_a_household_is_one_client_and_the_digest_says_nothing_of_it() -> None:
    clients = Clients(SECRET)

    def digest(peer: str | None, of: Clients = clients) -> str:
        return of.digest(scope(peer))

    assert digest("2001:db8:1:2::1") == digest("2001:db8:1:2:ffff::9") != digest("2001:db8:1:3::1")
    assert digest(CLIENT) == digest(f"::ffff:{CLIENT}") != digest("203.0.113.10")
    assert digest(CLIENT) != digest(CLIENT, Clients("another secret of the tests"))
    assert len(digest(CLIENT)) == 32 and int(digest(CLIENT), 16)
    assert digest(None) == digest("") == "unknown"


# The gate itself, on limits in memory with a clock that is held


class Clock:
    at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


GOOD, WRONG = "g" * 32, "w" * 32
ORGANISATION = "5d3f1f53-6d6c-4d62-8ba6-7f9c2f0f7d11"


class Doors:
    """A gate that knows one key; where it is `away`, none can be looked up."""

    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        self.away = False
        self.limits = LIMITS | limits
        limiter = Limiter(MemoryLimits(clock=self.clock), self.clock)
        keys = KeyCache(self._lookup, fresh=0, negative=0, pause=0)
        self.gate = Gate(keys, limiter, Clients(SECRET, networks("10.0.0.0/8")))

    async def _lookup(self, digests: list[str]) -> dict[str, Key]:
        if self.away:
            raise sa.exc.OperationalError("", {}, Exception())
        known = Key(ORGANISATION, limits=self.limits)
        return {digest: known for digest in digests if digest == key_digest(GOOD)}

    async def enter(self, key: str | None, *forwarded: str, bucket: str = "events") -> tuple[int, dict[str, str]]:
        """The status, 200 for a request that is let in, and the headers."""
        authorization = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
        asked = scope(PROXY, *forwarded, headers=authorization)
        try:
            status, headers = 200, (await self.gate.admit(asked, bucket)).limits.headers()
        except Refusal as refusal:
            status, headers = refusal.status, refusal.headers
        assert len(dict(headers)) == len(headers)
        return status, {name.decode(): value.decode() for name, value in headers}


def test_every_outcome_says_how_its_limit_stands() -> None:
    async def situation() -> None:
        doors = Doors(heartbeat=2)
        told = {"x-ratelimit-limit": "2", "x-ratelimit-remaining": "1", "x-ratelimit-reset": "1000060"}
        assert await doors.enter(GOOD, bucket="heartbeat") == (200, told)
        await doors.enter(GOOD, bucket="heartbeat")
        over = told | {"x-ratelimit-remaining": "0", "retry-after": "60"}
        assert await doors.enter(GOOD, bucket="heartbeat") == (429, over)
        doors.clock.at += 59.5
        assert await doors.enter(GOOD, bucket="heartbeat") == (429, over | {"retry-after": "1"})
        doors.clock.at += 0.5
        assert (await doors.enter(GOOD, bucket="heartbeat"))[0] == 200
        assert (await doors.enter(GOOD))[1]["x-ratelimit-remaining"] == "299"  # a bucket of its own
        told = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "59", "x-ratelimit-reset": "1000120"}
        assert await doors.enter(WRONG) == (401, told)

    asyncio.run(situation())


def test_failed_authentications_of_one_client_are_over_after_sixty_and_nobody_elses() -> None:
    async def situation() -> None:
        doors = Doors()
        statuses = [(await doors.enter(WRONG if n % 2 else None, CLIENT))[0] for n in range(63)]
        assert statuses == [401] * 60 + [429] * 3
        assert (await doors.enter(WRONG, f"198.51.100.1, {CLIENT}"))[0] == 429  # the spoofed address buys nothing
        assert (await doors.enter(WRONG, "203.0.113.10"))[0] == 401
        assert (await doors.enter(GOOD, CLIENT))[0] == 200
        doors.clock.at += 60
        assert (await doors.enter(WRONG, CLIENT))[0] == 401

    asyncio.run(situation())


def test_a_store_that_is_away_costs_its_clients_nothing() -> None:
    async def situation() -> None:
        doors = Doors()
        doors.away = True
        for _ in range(70):
            status, headers = await doors.enter(GOOD, CLIENT)
            assert (status, headers["x-ratelimit-remaining"], headers["retry-after"]) == (503, "60", "5")
        doors.away = False
        assert [(await doors.enter(WRONG, CLIENT))[0] for _ in range(61)] == [401] * 60 + [429]
        doors.away = True
        status, headers = await doors.enter(WRONG, CLIENT)
        assert (status, headers["x-ratelimit-remaining"], headers["retry-after"]) == (503, "0", "5")

    asyncio.run(situation())
