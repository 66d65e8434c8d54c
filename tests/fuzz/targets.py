"""What is fuzzed: each target takes any bytes, and raises where the product does what it must never do.

`SEEDS` are inputs that reach deep, for the fuzzer to change.
"""

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_from_bytes

import orjson
import zstandard

from ingest.answers import Headers, Refusal
from ingest.body import MAX_BODY_BYTES, read_body
from ingest.decode import decode
from ingest.keys import find_key
from readers import jwks, keys
from readers.tokens import TokenVerifier, Unauthorized
from schemas.ids import is_snippet_key, is_uuid
from tests.bodies import body, custom, read, sealed, view
from tests.issuer import ISSUER, SECRET, SigningKey, claims

_loop = asyncio.new_event_loop()
_TYPES = [b"", b"application/json", b"text/plain", b"application/x-www-form-urlencoded", b"application/xml"]
_CODINGS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"", bytes),
    (b"gzip", bytes),
    (b"deflate", bytes),
    (b"zstd", bytes),
    (b"gzip", gzip.compress),
    (b"deflate", zlib.compress),
    (b"deflate", lambda content: zlib.compress(content, wbits=-15)),
    (b"zstd", zstandard.ZstdCompressor().compress),
]


def body_target(data: bytes) -> None:
    """Type, coding and bytes of a body: a 4xx with its problems, or what a worker can read."""
    kind, coding, content = data[:1], data[1:2], data[2:]
    name, encode = _CODINGS[coding[0] % len(_CODINGS)] if coding else _CODINGS[0]
    media = _TYPES[kind[0] % len(_TYPES)] if kind else b""
    sent = encode(content)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": sent, "more_body": False}

    try:
        found = _loop.run_until_complete(read_body([(b"content-type", media), (b"content-encoding", name)], receive))
        assert len(found) <= MAX_BODY_BYTES
        request = decode(found)
    except Refusal as refusal:
        assert refusal.status in (400, 413, 415)
        if refusal.status == 400:
            assert 1 <= len(orjson.loads(refusal.body)["details"]) <= 20
        return
    line = sealed(request)
    assert len(read(line).events) == len(request.events)
    json.loads(line)


def key_target(data: bytes) -> None:
    """A header's value and a query: a key as they are issued, or a 401 that says nothing."""
    value, marked, query = data.partition(b"\n")
    headers: Headers = [(b"authorization", value)] if marked else []
    try:
        key = find_key(headers, query if marked else value)
    except Refusal as refusal:
        assert (refusal.status, refusal.body) == (401, b'{"error":"Unauthorized"}')
        return
    assert is_snippet_key(key)
    assert key.encode() in data or b"%" in data


_SIGNING = SigningKey("ES256", "one")
_DOCUMENT = json.dumps({"keys": [_SIGNING.jwk()]}).encode()


async def _secret(kid: str | None) -> Any:
    return SECRET


def _public(document: bytes) -> Callable[[str | None], Any]:
    try:
        found = jwks._keys(document, "ES256")
    except ValueError:
        found = {}

    async def find(kid: str | None) -> Any:
        if kid not in found:
            raise keys.UnknownKey
        return found[kid]

    return find


_VERIFIERS = [TokenVerifier("HS256", _secret, ISSUER), TokenVerifier("ES256", _public(_DOCUMENT), ISSUER)]


def token_target(data: bytes) -> None:
    """A token as it is, parts that are well signed, or a JWKS document: a session as it must be, or no session."""
    mode, text = data[:1], data[1:]
    first, marked, second = text.partition(b"\n")
    session = None
    try:
        if mode == b"s" and marked:
            signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (first, second))
            mark = hmac.digest(SECRET.encode(), signed, hashlib.sha256)
            token = (signed + b"." + base64.urlsafe_b64encode(mark).rstrip(b"=")).decode()
            session = _loop.run_until_complete(TokenVerifier("HS256", _secret, ISSUER).verify(token))
        elif mode == b"j":
            verifier = TokenVerifier("ES256", _public(text), ISSUER)
            assert not _verifies(verifier, _OTHERS)
        else:
            for verifier in _VERIFIERS:
                assert not _verifies(verifier, text.decode("latin-1")), "a token that nobody signed"
    except Unauthorized:
        return
    if session is not None:
        sent = json.loads(second)
        assert sent["sub"].lower() == session.user and is_uuid(session.user)
        assert sent["iss"] == ISSUER and sent["role"] == "authenticated"
        assert session.organisation is None or is_uuid(session.organisation)


def _verifies(verifier: TokenVerifier, token: str) -> bool:
    try:
        _loop.run_until_complete(verifier.verify(token))
    except Unauthorized:
        return False
    return True


_OTHERS = SigningKey("ES256", "one").token()  # signed by a key that no document here has
_LATER = {"exp": 4_000_000_000}
_MANY = body(view(userId="u", sessionId="s", data={"a": [1]}), custom(timestamp=1), sentAt="2026-03-01T11:00:00Z")
TARGETS: dict[str, Callable[[bytes], None]] = {"body": body_target, "key": key_target, "token": token_target}
SEEDS: dict[str, list[bytes]] = {
    "body": [
        b"\1\0" + _MANY,
        b"\1\0" + orjson.dumps([view()]),
        b"\1\0" + orjson.dumps(custom()),
        b"\3\0data=" + quote_from_bytes(_MANY).encode(),
        *(bytes([1, number]) + _MANY for number in range(4, 8)),
        b"\1\1" + gzip.compress(_MANY) + gzip.compress(b" "),
        b"\1\2" + zlib.compress(_MANY),
        b"\1\3" + zstandard.ZstdCompressor().compress(_MANY),
    ],
    "key": [
        b"Bearer " + b"k" * 32 + b"\n",
        b"bearer  " + b"k" * 32 + b" \nkey=x",
        b"a=b&key=" + b"k" * 32 + b"&c=%20",
        b"key=%6B" + b"k" * 31,
    ],
    "token": [
        b"s" + b"\n".join(json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "x"}, claims(**_LATER))),
        b"s" + b"\n".join(json.dumps(part).encode() for part in ({"alg": "none"}, claims(**_LATER))),
        b"t" + _OTHERS.encode(),
        b"j" + json.dumps({"keys": [SigningKey(kind, "one").jwk() for kind in ("ES256", "EdDSA")]}).encode(),
        b"j" + _DOCUMENT.replace(b'"EC"', b'"oct"'),
    ],
}
