"""GET /api/v1/openapi.json: for everybody. It counts in the bucket of the client's address, and says so as all do."""

import hashlib
from importlib.metadata import version

import orjson
from starlette.routing import BaseRoute

from ingest.answers import Answer
from ingest.call import Call
from ingest.endpoint import Operation, route
from ingest.gate import Gate
from schemas import openapi

_BODY = orjson.dumps(openapi.document(version("zenstep-ingest")))
_TAG = b'"%s"' % hashlib.sha256(_BODY).hexdigest()[:32].encode()
_HEADERS = [(b"etag", _TAG), (b"cache-control", b"public, max-age=300")]


async def document(call: Call) -> Answer:
    """200, or 304 for who has it."""
    asked = b", ".join(value for name, value in call.scope["headers"] if name == b"if-none-match")
    if _TAG in asked or asked == b"*":
        return Answer(304, b"", _HEADERS)
    return Answer(200, _BODY, _HEADERS)


def openapi_route(gate: Gate) -> BaseRoute:
    return route(openapi.PATH, gate, GET=Operation(None, document))
