"""Reads a request's body within bounds."""

from starlette.types import Receive

from ingest.answers import too_large, unsupported_media_type

MAX_BODY_BYTES = 512 * 1024
JSON_TYPES = {"", "application/json", "text/plain"}


class ClientGone(Exception):
    """The client closed the connection before its body was whole; there is nobody to answer."""


async def read_body(headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes:
    """Raises a 413 Refusal, before reading where Content-Length says so, a 415 Refusal, and ClientGone.

    text/plain is what `navigator.sendBeacon(url, string)` sends; it is JSON all the same.
    """
    for name, value in headers:
        if name == b"content-type":
            if value.decode("latin-1").partition(";")[0].strip().lower() not in JSON_TYPES:
                raise unsupported_media_type()
        elif name == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
            raise too_large()
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
            return b"".join(chunks) if len(chunks) > 1 else chunk
