"""The connection to Redis, against a server that answers as the test wants: whose answer is whose, and when it ends."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import uvloop
from redis.exceptions import NoScriptError, RedisError, ResponseError

from backends.limits.wire import Wire, packed

PATIENCE = 20.0
Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
QUESTION = len(packed((b"PING", b"0")))


class Opened:
    """As the library holds a connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def _close(self) -> None:
        self._writer.close()


async def opened(port: int) -> Wire:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    return Wire(Opened(writer))


def with_server(server: Server, situation: Callable[[Wire], Awaitable[None]]) -> None:
    async def run() -> None:
        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        wire = await opened(listening.sockets[0].getsockname()[1])
        try:
            async with asyncio.timeout(PATIENCE + 10):
                await situation(wire)
        finally:
            wire.close()
            listening.close()
            if left := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(left, timeout=PATIENCE)

    asyncio.run(run())


def says(*pieces: bytes, questions: int) -> Server:
    """When so many questions have come, these pieces one after the other, and no more."""

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(questions * QUESTION)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            await reader.read()
        writer.close()

    return server


async def ask(wire: Wire, questions: int) -> list[bytes | BaseException]:
    asked = (wire.ask(PATIENCE, b"PING", b"%d" % number) for number in range(questions))
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_each_of_many_questions_has_its_own_answer_however_they_are_cut(size: int) -> None:
    said = b"+PONG\r\n$3\r\n1 2\r\n-NOSCRIPT No matching\r\n$0\r\n\r\n$4\r\n\r\n-x\r\n-ERR no\r\n"
    pieces = [said[at : at + size] for at in range(0, len(said), size)]

    async def situation(wire: Wire) -> None:
        found = await ask(wire, 6)
        assert [*found[:2], *found[3:5]] == [b"PONG", b"1 2", b"", b"\r\n-x"]
        assert isinstance(found[2], NoScriptError)
        assert type(found[5]) is ResponseError
        assert not wire.lost

    with_server(says(*pieces, questions=6), situation)


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n", b":1\r\n", b"$x\r\n", b"+a\r\n+b\r\n+c\r\n"], ids=repr
)
def test_what_is_no_answer_of_redis_ends_the_connection(said: bytes) -> None:
    async def situation(wire: Wire) -> None:
        await ask(wire, 2)
        assert wire.lost
        with pytest.raises(RedisError):
            await wire.ask(PATIENCE, b"PING")

    with_server(says(said, questions=2), situation)


def test_a_connection_that_is_closed_ends_every_question() -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(QUESTION)
        writer.close()

    async def situation(wire: Wire) -> None:
        assert all(isinstance(found, RedisError) for found in await ask(wire, 3))
        assert wire.lost

    with_server(server, situation)


def test_one_question_that_is_not_answered_ends_those_behind_it_too() -> None:
    async def situation(wire: Wire) -> None:
        asked = [wire.ask(seconds, b"PING", b"0") for seconds in (0.05, PATIENCE, PATIENCE)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(error) for error in found] == ["no answer in time"] * 3
        assert wire.lost

    with_server(says(questions=100), situation)


def test_whoever_does_not_wait_any_longer_takes_nobodys_answer() -> None:
    async def situation(wire: Wire) -> None:
        gone = asyncio.create_task(wire.ask(PATIENCE, b"PING", b"0"))
        await asyncio.sleep(0)
        gone.cancel()
        assert await wire.ask(PATIENCE, b"PING", b"1") == b"second"

    with_server(says(b"+first\r\n+second\r\n", questions=2), situation)


def test_an_answer_that_has_come_while_the_loop_was_held_up_is_in_time() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    held, answered = threading.Event(), threading.Event()
    seconds = 1.0

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1000)
            news.send(b"x")
            held.wait(30)
            connection.sendall(b"+PONG\r\n")
            answered.set()
            connection.recv(1000)

    def hold_up() -> None:
        told.recv(1)
        held.set()
        answered.wait(30)
        time.sleep(seconds + 0.05)  # the loop's own thread

    async def situation() -> bytes:
        asyncio.get_running_loop().add_reader(told, hold_up)
        wire = await opened(listening.getsockname()[1])
        try:
            return await wire.ask(seconds, b"PING")
        finally:
            wire.close()
            asyncio.get_running_loop().remove_reader(told)

    told, news = socket.socketpair()
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    # Of uvloop's, since there a late timer goes off before a socket is read.
    with told, news, listening, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(situation()) == b"PONG"
    thread.join()
