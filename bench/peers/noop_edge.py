"""The floor: an ASGI application under uvicorn that reads the body and answers 202, without having looked at anything.

PEER_EVENTS is the number it says it has accepted.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

BODY = b'{"accepted":%d}' % int(os.environ["PEER_EVENTS"])
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 202, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
