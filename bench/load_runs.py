"""The two ways of loading a server: as fast as it answers (closed), and at a rate of its clients' (open)."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence

from bench.bodies import Requests
from bench.load_connection import Connection, Unexpected

DRAIN_SECONDS = 30.0


class Run:
    """Connections to the ports in turn. `latencies` are in seconds, in the order of the answers."""

    def __init__(self, requests: Requests) -> None:
        self._answer = requests.answer
        self._next: Iterator[bytes] = requests.endless()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies: list[float] = []
        self.seconds = 0.0

    async def run(self, ports: Sequence[int], connections: int, seconds: float) -> None:
        """Raises Unexpected at an answer that is no 202, and where answers are still out long after the end."""
        loop = asyncio.get_running_loop()
        made = [
            (await loop.create_connection(self._connection, "127.0.0.1", ports[number % len(ports)]))[1]
            for number in range(connections)
        ]
        try:
            started = time.perf_counter()
            self.begin(made, started, seconds)
            async with asyncio.timeout(seconds + DRAIN_SECONDS):
                await self._ended
            self.seconds = time.perf_counter() - started
        except TimeoutError:
            raise Unexpected(f"answers are still out {DRAIN_SECONDS:.0f} s after the last request") from None
        finally:
            for connection in made:
                connection.close()

    def begin(self, made: list[Connection], started: float, seconds: float) -> None:
        raise NotImplementedError

    def answered(self, connection: Connection) -> None:
        raise NotImplementedError

    def idle_lost(self, connection: Connection) -> None:
        """The server has had enough of waiting for its next request."""

    def end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _connection(self) -> Connection:
        return Connection(self._answer, self.answered, self._fail, self.idle_lost)


class Closed(Run):
    """Each connection sends its next request when the last one is answered."""

    def begin(self, made: list[Connection], started: float, seconds: float) -> None:
        self._until = started + seconds
        self._out = len(made)
        for connection in made:
            connection.send(next(self._next), started)

    def answered(self, connection: Connection) -> None:
        now = time.perf_counter()
        self.latencies.append(now - connection.due)
        if now < self._until:
            connection.send(next(self._next), now)
            return
        self._out -= 1
        if not self._out:
            self.end()


class Open(Run):
    """Requests come at a rate, one independent of the other, whatever the server does.

    A request that finds no free connection waits for one, and its latency counts from when it was due. Connections
    take turns, so that none is idle for long.
    """

    def __init__(self, requests: Requests, rate: float, seed: int = 1) -> None:
        super().__init__(requests)
        self._rate = rate
        self._chance = random.Random(seed)

    def begin(self, made: list[Connection], started: float, seconds: float) -> None:
        self._free = deque(made)
        self._connections = len(made)
        self._due = deque(arrivals(self._chance, self._rate, seconds, started))
        self._send_due()

    def answered(self, connection: Connection) -> None:
        now = time.perf_counter()
        self.latencies.append(now - connection.due)
        if self._due and self._due[0] <= now:  # it has waited for a connection
            connection.send(next(self._next), self._due.popleft())
            return
        self._free.append(connection)
        if not self._due and len(self._free) == self._connections:
            self.end()

    def idle_lost(self, connection: Connection) -> None:
        self._free.remove(connection)
        self._connections -= 1
        if not self._connections:
            self._fail(Unexpected("the server has closed every connection"))

    def _send_due(self) -> None:
        now = time.perf_counter()
        while self._due and self._due[0] <= now and self._free:
            self._free.popleft().send(next(self._next), self._due.popleft())
        if self._due:
            asyncio.get_running_loop().call_later(max(0.001, self._due[0] - now), self._send_due)
        elif len(self._free) == self._connections:
            self.end()


def arrivals(chance: random.Random, rate: float, seconds: float, started: float) -> Iterator[float]:
    """When each request is due: exponential gaps, as of many clients that know nothing of each other."""
    at = started + chance.expovariate(rate)
    while at < started + seconds:
        yield at
        at += chance.expovariate(rate)
