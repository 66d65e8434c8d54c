"""Reads a request's body within bounds of size and time."""

import asyncio

from starlette.types import Receive

from ingest.answers import request_timeout, too_large, unsupported_media_type

MAX_BODY_BYTES = 512 * 1024
BODY_SECONDS = 15.0
JSON_TYPES = {"", "application/json", "text/plain"}


class ClientGone(Exception):
    """The client closed the connection before its body was whole; there is nobody to answer."""


async def read_body(headers: list[tuple[bytes, bytes]], receive: Receive, seconds: float = BODY_SECONDS) -> bytes:
    """Raises a 413 Refusal, before reading where Content-Length says so, a 415 and a 408 Refusal, and ClientGone.

    text/plain is what `navigator.sendBeacon(url, string)` sends; it is JSON all the same.
    """
    for name, value in headers:
        text = value.decode("latin-1").strip().lower()
        if name == b"content-type" and text.partition(";")[0].strip() not in JSON_TYPES:
            raise unsupported_media_type()
        if name == b"content-encoding" and text not in ("", "identity"):
            raise unsupported_media_type()
        if name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
            raise too_large()
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive)
    except TimeoutError:
        raise request_timeout() from None


async def _read(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise too_large()
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
