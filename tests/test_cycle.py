"""An answer and the connection it goes onto: what goes out, and that nothing does while the client reads nothing."""

import asyncio
from typing import Any

import pytest

from ingest.answers import Answer, send_answer
from schemas.limits import Verdict
from service.cycle import Cycle
from tests.held import Held

SAID = Answer(202, b'{"accepted":1}')
LIMITS = Verdict(300, 299, 1_790_000_060, 0)
ANSWER = (
    b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 14\r\n"
    b"x-ratelimit-limit: 300\r\nx-ratelimit-remaining: 299\r\nx-ratelimit-reset: 1790000060\r\nvary: Origin\r\n\r\n"
    b'{"accepted":1}'
)


def cycle(connection: Held) -> Cycle:
    return Cycle(connection, {"type": "http", "method": "POST", "headers": []}, True, False)


async def ticks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_an_answer_says_what_it_said_line_by_line() -> None:
    async def situation() -> None:
        connection = Held()
        await send_answer(cycle(connection).send, SAID, LIMITS, [])
        assert (connection.written, connection.completed) == (ANSWER, 1)
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        await send_answer(send, SAID, LIMITS, [])
        lines = b"".join(b"%b: %b\r\n" % header for header in messages[0]["headers"])
        assert b"HTTP/1.1 202 Accepted\r\n" + lines + b"\r\n" + messages[1]["body"] == ANSWER

    asyncio.run(situation())


@pytest.mark.parametrize("gone", [False, True])
def test_an_answer_waits_for_a_client_that_reads_nothing(gone: bool) -> None:
    async def situation() -> None:
        connection = Held()
        connection.flow.pause_writing()
        answering = cycle(connection)
        task = asyncio.create_task(send_answer(answering.send, SAID, LIMITS, []))
        await ticks()
        assert not task.done() and connection.written == b""
        answering.disconnected = gone
        connection.flow.resume_writing()
        await task
        assert connection.written == (b"" if gone else ANSWER)

    asyncio.run(situation())
