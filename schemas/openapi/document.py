"""Puts the document together: types become components, the table of operations becomes paths."""

from collections.abc import Iterable
from typing import Any

import msgspec

from schemas.events import MAX_EVENTS, Event, EventsRequest
from schemas.jsonschema import portable, with_rules
from schemas.limits import LIMITS, STRANGERS, WINDOW_SECONDS
from schemas.openapi import answers
from schemas.openapi.examples import FLOW_ID
from schemas.openapi.operations import OPERATIONS, Operation

PATH = "/api/v1/openapi.json"
_REF = "#/components/schemas/{name}"
_DESCRIPTION = """\
Takes in what people do in Zenstep's product tours, and answers with funnels.

A snippet key is public by design and belongs to one organisation. A request without a valid credential is answered
401 whatever the cause. Every GET can be asked with HEAD. OPTIONS asks for no credential and is answered 204.
A method that a path does not have is answered 405 with `Allow`, a path that is none 404; both count as failed requests.
"""
_BODY = """\
JSON, whichever of these types it is declared as: `application/json`, `text/plain` (what `sendBeacon(url, string)`
sends), `application/octet-stream`, none, or `application/x-www-form-urlencoded` with the JSON in its field `data`.
`Content-Encoding` may be gzip, deflate or zstd.
"""
_ERRORS: dict[int, tuple[str, Any]] = {
    400: (
        "A bad field; nothing was taken.",
        {"error": "Validation failed", "details": [{"path": "events[0].eventType", "message": "Invalid enum value"}]},
    ),
    401: ("No credential, or not a valid one.", {"error": "Unauthorized"}),
    403: ("A snippet key where a session token is needed.", {"error": "Forbidden"}),
    404: ("There is none of this id in the organisation.", {"error": "Not found"}),
    408: ("The body did not come in time.", {"error": "Request timeout"}),
    413: ("The body is too large.", {"error": "Payload too large"}),
    415: ("A type or an encoding of body that is not taken.", {"error": "Unsupported media type"}),
    429: ("Over the limit.", {"error": "Rate limit exceeded", "retryAfter": 17}),
    431: ("The head of the request is too large; answered before limits are known.", {"error": "Headers too large"}),
    500: ("A fault of ours.", {"error": "Internal server error"}),
    503: ("Nothing was taken or read; try again later.", {"error": "Service unavailable"}),
}
_ERROR_TYPES = {400: answers.Invalid, 429: answers.RateLimited}
_LIMIT_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_HEADERS = {
    "X-RateLimit-Limit": ("Requests that the window allows.", 1, 300),
    "X-RateLimit-Remaining": ("Requests that are left in it.", 0, 299),
    "X-RateLimit-Reset": ("When it ends, in Unix seconds.", 0, 1774872060),
    "Retry-After": ("Seconds to wait.", 1, 17),
}
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "key": [{"snippetKey": []}, {"snippetKeyInQuery": []}],
    "session": [{"sessionToken": []}],
    "none": [],
}


def document(version: str) -> dict[str, Any]:
    """The whole document, as JSON values."""
    types = [kind for op in OPERATIONS for kind in (op.answer, op.body) if isinstance(kind, type)]
    types += [answers.Error, *_ERROR_TYPES.values()]
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, Any] = {}
    for op in OPERATIONS:
        paths.setdefault(op.path, {})[op.method.lower()] = _operation(op)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Zenstep ingest",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": with_rules(portable(schemas)),
            "responses": {str(status): _error(status) for status in _used(OPERATIONS)},
            "headers": {
                name: {"description": text, "schema": {"type": "integer", "minimum": least}, "example": example}
                for name, (text, least, example) in _HEADERS.items()
            },
            "securitySchemes": {
                "snippetKey": {"type": "http", "scheme": "bearer", "description": "32 letters and digits."},
                "snippetKeyInQuery": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "key",
                    "description": "The snippet key, where no header can be set. The header wins where both are sent.",
                },
                "sessionToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Of a Supabase session whose user is a member of the flow's organisation.",
                },
            },
        },
    }


def _operation(op: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": op.name,
        "summary": op.summary,
        "description": _limit(op),
        "security": _SECURITY[op.credential],
        "responses": {str(op.status): _success(op)},
    }
    parameters = [_id_parameter()] if "{id}" in op.path else []
    for name, text, schema, required in op.query:
        parameters.append({"name": name, "in": "query", "description": text, "schema": schema, "required": required})
    if parameters:
        described["parameters"] = parameters
    if op.not_modified:
        described["responses"]["304"] = {
            "description": "As `If-None-Match` has it.",
            "headers": _headers(_LIMIT_HEADERS),
        }
    if op.body is not None:
        described["requestBody"] = _body(op)
    described["responses"] |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in op.errors}
    return described


def _limit(op: Operation) -> str:
    if op.bucket is None:
        return f"Limit: {STRANGERS} requests in {WINDOW_SECONDS} seconds from one address, failed ones among them."
    return (
        f"Limit: {LIMITS[op.bucket]} requests in {WINDOW_SECONDS} seconds of one organisation, "
        f"shared by all operations of the bucket `{op.bucket}`."
    )


def _body(op: Operation) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": _REF.format(name=op.body.__name__)}
    if op.body is EventsRequest:
        one = {"$ref": _REF.format(name=Event.__name__)}
        alone = {"allOf": [one, {"not": {"required": ["events"]}}]}
        several = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_EVENTS}
        schema = {"anyOf": [schema, several, alone]}
    return {
        "required": op.body_required,
        "description": _BODY,
        "content": {"application/json": {"schema": schema, "example": op.body_example}},
    }


def _success(op: Operation) -> dict[str, Any]:
    headers = _headers(_LIMIT_HEADERS)
    if isinstance(op.answer, str):
        return {"description": "The file.", "headers": headers, "content": {op.answer: {"schema": {"type": "string"}}}}
    named = isinstance(op.answer, type)
    schema = {"$ref": _REF.format(name=op.answer.__name__)} if named else {"type": "object"}
    content: dict[str, Any] = {"schema": schema}
    if op.example is not None:
        content["example"] = op.example
    text = "Durable." if op.status == 202 else "As asked."
    return {"description": text, "headers": headers, "content": {"application/json": content}}


def _error(status: int) -> dict[str, Any]:
    text, example = _ERRORS[status]
    names = [] if status == 431 else list(_LIMIT_HEADERS)
    if status in (429, 503):
        names.append("Retry-After")
    schema = {"$ref": _REF.format(name=_ERROR_TYPES.get(status, answers.Error).__name__)}
    return {
        "description": text,
        "headers": _headers(names),
        "content": {"application/json": {"schema": schema, "example": example}},
    }


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _used(operations: Iterable[Operation]) -> list[int]:
    return sorted({status for op in operations for status in op.errors})


def _id_parameter() -> dict[str, Any]:
    return {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "A UUID; any other form is a 400.",
        "schema": {"type": "string", "format": "uuid"},
        "example": FLOW_ID,
    }
