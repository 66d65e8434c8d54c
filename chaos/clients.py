"""Browsers: they send, try again with the same ids where they are not sure, give up in the end, and note everything."""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson

from chaos.traffic import Sending

TRIES = 7
TIMEOUT_SECONDS = 6.0
LONGEST_PAUSE = 3.0


class Try(NamedTuple):
    """One attempt: at which edge, when (seconds into the round), how long, and its status or what went wrong."""

    edge: int
    at: float
    seconds: float
    outcome: int | str

    @property
    def acknowledged(self) -> bool:
        return isinstance(self.outcome, int) and 200 <= self.outcome < 300


class Outcome(NamedTuple):
    """A request and all its attempts. Once one was acknowledged, every event of it has to be counted."""

    sending: Sending
    tries: list[Try]

    @property
    def acknowledged(self) -> bool:
        return any(one.acknowledged for one in self.tries)


class Clients:
    """All browsers of a round, each organisation with its key."""

    def __init__(self, bases: Sequence[str], keys: Sequence[str]) -> None:
        self._bases = bases
        self._keys = keys
        self._started = 0.0

    def send(self, sendings: Sequence[Sending]) -> list[Outcome]:
        """Blocks until the last has given up or was answered."""
        return asyncio.run(self._send(sendings))

    async def _send(self, sendings: Sequence[Sending]) -> list[Outcome]:
        self._started = time.monotonic()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False) as http:
            return list(await asyncio.gather(*(self._browser(http, sending) for sending in sendings)))

    async def _browser(self, http: httpx.AsyncClient, sending: Sending) -> Outcome:
        rng = random.Random(sending.seed)
        await asyncio.sleep(max(0.0, sending.at - self._now()))
        tries: list[Try] = []
        for number in range(TRIES):
            tries.append(await self._try(http, sending, rng.randrange(len(self._bases))))
            outcome = tries[-1].outcome
            if isinstance(outcome, int) and outcome < 500 and outcome != 429:
                break
            await asyncio.sleep(min(LONGEST_PAUSE, 0.2 * 2**number) * rng.uniform(0.5, 1.0))
        return Outcome(sending, tries)

    async def _try(self, http: httpx.AsyncClient, sending: Sending, edge: int) -> Try:
        url, key = f"{self._bases[edge]}/api/v1{sending.path}", self._keys[sending.organisation]
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        if sending.beacon:
            url, headers = f"{url}?key={key}", {"Content-Type": "text/plain"}
        body: dict[str, Any] = dict(sending.body)
        if sending.skew is not None:
            body["sentAt"] = max(0, time.time_ns() // 1_000_000 + sending.skew)
        at = self._now()
        outcome: int | str
        try:
            outcome = (await http.post(url, headers=headers, content=orjson.dumps(body))).status_code
        except httpx.HTTPError as error:
            outcome = type(error).__name__
        return Try(edge, round(at, 3), round(self._now() - at, 3), outcome)

    def _now(self) -> float:
        return time.monotonic() - self._started


def write_log(path: Path, outcomes: Sequence[Outcome]) -> None:
    """A line for each request: what was sent by whom, and what became of each try."""
    with path.open("wb") as file:
        for sending, tries in outcomes:
            line = {
                "at": round(sending.at, 3),
                "organisation": sending.organisation,
                "path": sending.path,
                "ids": sending.ids,
                "tries": [one._asdict() for one in tries],
            }
            file.write(orjson.dumps(line) + b"\n")


def acknowledged_ids(outcomes: Sequence[Outcome]) -> dict[int, set[str]]:
    """The ids of all events that a 2xx was given for, by the organisation's number."""
    found: dict[int, set[str]] = {}
    for outcome in outcomes:
        if outcome.acknowledged:
            found.setdefault(outcome.sending.organisation, set()).update(outcome.sending.ids)
    return found
