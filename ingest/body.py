"""Reads a request's body within bounds of size and time, and takes the JSON out of what it came in."""

import asyncio
import binascii
import re
from functools import lru_cache

from starlette.types import Receive

from ingest.answers import (
    Refusal,
    invalid,
    request_timeout,
    too_large,
    unsupported_coding,
    unsupported_media_type,
)
from ingest.inflate import CODINGS, inflate
from ingest.problems import Problem
from service.fields import Headers, values

MAX_BODY_BYTES = 512 * 1024
"""As sent, and inflated."""
BODY_SECONDS = 15.0
FORM = "application/x-www-form-urlencoded"
JSON_TYPES = {"", "application/json", "text/plain", "application/octet-stream", FORM}
_DATA = re.compile(rb"(?:^|&)data=([^&]*)")
_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})|[\r\n]")


class ClientGone(Exception):
    """The client closed the connection before its body was whole; there is nobody to answer."""


async def read_body(headers: Headers, receive: Receive, seconds: float = BODY_SECONDS) -> bytes:
    """Raises a 413 Refusal, before reading where Content-Length says so, a 415, a 408 and a 400, and ClientGone.

    text/plain is what `navigator.sendBeacon(url, string)` sends; it is JSON all the same, and UTF-8 whatever a charset
    says. A form has the JSON in its field `data`.
    """
    form, coding = _described(headers)
    for value in values(headers, b"content-length"):
        if value.isdigit() and int(value) > MAX_BODY_BYTES:
            raise too_large()
    try:
        async with asyncio.timeout(seconds):
            body = await _read(receive)
    except TimeoutError:
        raise request_timeout() from None
    return _json(body, form, coding) if form or coding else body


def body_at_hand(headers: Headers, body: bytes) -> bytes:
    """The same for a body that has come as a whole."""
    form, coding = _described(headers)
    if len(body) > MAX_BODY_BYTES:
        raise too_large()
    return _json(body, form, coding) if form or coding else body


def _json(body: bytes, form: bool, coding: str) -> bytes:
    """Out of what it came in. A Refusal of it has the body with it."""
    try:
        inflated = inflate(body, coding, MAX_BODY_BYTES) if coding else body
        return _form_data(inflated) if form else inflated
    except Refusal as refusal:
        refusal.given = body
        raise


def _described(headers: Headers) -> tuple[bool, str]:
    """Whether it is a form, and its content coding or "". Two types, or two codings, are none we know."""
    return _read_as(values(headers, b"content-type"), values(headers, b"content-encoding"))


@lru_cache(64)  # each is as long as a head at most
def _read_as(kinds: tuple[bytes, ...], codings: tuple[bytes, ...]) -> tuple[bool, str]:
    kind = coding = None
    for value in kinds:
        given = value.decode("latin-1").partition(";")[0].strip().lower()
        if given not in JSON_TYPES or kind is not None:
            raise unsupported_media_type()
        kind = given
    for value in codings:
        given = value.decode("latin-1").strip().lower()
        if given in ("", "identity"):
            continue
        if given not in CODINGS or coding is not None:
            raise unsupported_coding(CODINGS)
        coding = given
    return kind == FORM, coding or ""


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


def _form_data(body: bytes) -> bytes:
    """The field `data`. With two of them it could be read in two ways, and a bad escape could too."""
    found = _DATA.findall(body)
    if len(found) != 1 or _NO_ESCAPE.search(found[0]):
        raise invalid([Problem("", "Malformed form: expected one field data")])
    # Quoted-printable differs in the sign alone; urllib's decoder takes 0.2 s for half a megabyte of escapes.
    return binascii.a2b_qp(found[0].replace(b"+", b" ").replace(b"=", b"=3D").replace(b"%", b"="))
