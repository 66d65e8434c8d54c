"""Requests as browsers send them, written out beforehand: bodies as Zenstep's snippet makes them, keys drawn by Zipf.

A body is one browser's: one session, one user, a few pages. Its events are about 360 bytes each.
"""

import gzip
import itertools
import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import orjson

from schemas.ids import uuid7

PATH = "/api/v1/events"
GZIP_LEVEL = 6
FLOWS = 40  # of all organisations together: the edge does not look at flows
DRAWN = 65_537  # keys before they begin again: a prime, so that they meet other bodies each time
TYPES = ["view"] * 6 + ["complete", "skip", "dismiss", "custom"]
PAGES = ["dashboard", "projects/41/board", "settings/billing?tab=plan&from=nav", "reports/weekly", "team/members#roles"]


class Kind(NamedTuple):
    """What is in a body. `gzip` compresses it."""

    events: int
    gzip: bool = False

    @property
    def name(self) -> str:
        counted = "1 event" if self.events == 1 else f"{self.events} events"
        return f"{counted}, gzip" if self.gzip else counted


def body(chance: random.Random, events: int, now: datetime) -> bytes:
    """JSON as `JSON.stringify` writes it."""
    flow = (
        uuid.UUID(int=chance.getrandbits(128), version=4) if chance.random() < 0.1 else _flow(chance.randrange(FLOWS))
    )
    session = f"s_{chance.getrandbits(80):020x}"
    user = f"user_{chance.randrange(10**7):07d}"
    found = []
    for number in range(events):
        at = now - timedelta(milliseconds=40 * (events - number))
        kind = chance.choice(TYPES)
        event: dict[str, object] = {
            "id": uuid7(int(at.timestamp() * 1000)),
            "eventType": kind,
            "flowId": str(flow),
            "stepId": str(_flow(chance.randrange(FLOWS))),
            "sessionId": session,
            "userId": user,
            "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
            "url": f"https://app.customer.example/{chance.choice(PAGES)}",
            "data": {"position": number % 7, "viewport": "1440x900"},
        }
        if kind == "custom":
            event["name"] = f"clicked {chance.choice(PAGES)}"
            del event["flowId"], event["stepId"]
        found.append(event)
    return orjson.dumps({"events": found, "sentAt": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z"})


def zipf(chance: random.Random, population: int, drawn: int) -> list[int]:
    """Indices below `population`; the k-th is drawn in proportion to 1/k."""
    weights = list(itertools.accumulate(1 / rank for rank in range(1, population + 1)))
    return chance.choices(range(population), cum_weights=weights, k=drawn)


class Requests:
    """An endless supply of requests with so many different bodies; each costs its taker one concatenation."""

    def __init__(self, keys: Sequence[str], kind: Kind, different: int, seed: int = 1) -> None:
        chance = random.Random(seed)
        now = datetime.now(UTC)
        self.answer = b'{"accepted":%d}' % kind.events
        self._heads = [_head(key, number, kind) for number, key in enumerate(keys)]
        self._tails = [_tail(body(chance, kind.events, now), kind) for _ in range(different)]
        self._keys = zipf(chance, len(keys), DRAWN)

    def endless(self) -> Iterator[bytes]:
        heads = self._heads
        for number, tail in zip(itertools.cycle(self._keys), itertools.cycle(self._tails), strict=False):
            yield heads[number] + tail


def _flow(number: int) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"flow {number}")


def _head(key: str, number: int, kind: Kind) -> bytes:
    """All but Content-Length of what a browser sends for a cross-origin fetch, in its order."""
    version = 128 + number % 12
    brands = f'"Chromium";v="{version}", "Not?A_Brand";v="24", "Google Chrome";v="{version}"'
    lines = [
        f"POST {PATH} HTTP/1.1",
        "Host: events.zenstep.example",
        "Connection: keep-alive",
        'sec-ch-ua-platform: "Windows"',
        f"Authorization: Bearer {key}",
        "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{version}.0.0.0 Safari/537.36",
        f"sec-ch-ua: {brands}",
        "Content-Type: application/json",
        *(["Content-Encoding: gzip"] if kind.gzip else []),
        "sec-ch-ua-mobile: ?0",
        "Accept: */*",
        f"Origin: https://app.customer-{number}.example",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Mode: cors",
        "Sec-Fetch-Dest: empty",
        f"Referer: https://app.customer-{number}.example/",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: en-US,en;q=0.9",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _tail(content: bytes, kind: Kind) -> bytes:
    sent = gzip.compress(content, GZIP_LEVEL) if kind.gzip else content
    return b"Content-Length: %d\r\n\r\n%b" % (len(sent), sent)
