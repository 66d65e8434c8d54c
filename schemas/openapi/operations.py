"""Every operation in one table. A test holds it to the routes that are served: paths, methods and buckets."""

from typing import Any, Literal, NamedTuple

from schemas.events import EventsRequest
from schemas.openapi import answers, examples
from schemas.small import Completion, FingerprintReport, HealthReport, ProgressReport

Credential = Literal["key", "session", "none"]

READING = (401, 429, 431, 500, 503)
READING_ONE = (400, 401, 404, 429, 431, 500, 503)
READING_NUMBERS = (400, 401, 403, 404, 429, 431, 500, 503)
WRITING = (400, 401, 408, 413, 415, 429, 431, 500, 503)
WRITING_TO_ONE = (400, 401, 404, 408, 413, 415, 429, 431, 500, 503)


class Parameter(NamedTuple):
    """One of the query."""

    name: str
    description: str
    schema: dict[str, Any]
    required: bool = False


class Operation(NamedTuple):
    """`answer` is a type of answers.py, a media type where the body is not JSON, None for any object.

    Without a bucket it counts in that of the address.
    """

    method: str
    path: str
    name: str
    summary: str
    credential: Credential
    bucket: str | None
    status: int
    answer: Any
    example: Any
    errors: tuple[int, ...]
    body: Any = None
    body_example: Any = None
    body_required: bool = True
    query: tuple[Parameter, ...] = ()
    not_modified: bool = False


_RANGE = (
    Parameter(
        "from",
        "A date, or a time with offset on a quarter of an hour. Default: 30 days that end with `to`.",
        {"type": "string", "examples": ["2026-03-01"]},
    ),
    Parameter("to", "As `from`, exclusive. Default: the end of today.", {"type": "string", "examples": ["2026-03-31"]}),
    Parameter(
        "interval",
        "At most 400 days by day, 31 by hour.",
        {"type": "string", "enum": ["day", "hour"], "default": "day"},
    ),
    Parameter("timezone", "An IANA time zone.", {"type": "string", "default": "UTC", "examples": ["Europe/Berlin"]}),
)
_PERSON = (
    Parameter(
        "userId",
        "The person's id, if they are known. One of the two ids is needed.",
        {"type": "string", "minLength": 1, "maxLength": 255, "examples": ["ada@example.com"]},
    ),
    Parameter(
        "anonymousId",
        "The browser's id, if they are not. A userId goes before.",
        {"type": "string", "minLength": 1, "maxLength": 128, "examples": ["b-17"]},
    ),
)

OPERATIONS = (
    Operation(
        "POST",
        "/api/v1/events",
        "sendEvents",
        "Send 1 to 50 events, or an array of them, or one alone. A 202 means that all of them are durable.",
        "key",
        "events",
        202,
        answers.Accepted,
        {"accepted": 2},
        WRITING,
        EventsRequest,
        examples.EVENTS,
    ),
    Operation(
        "GET",
        "/api/v1/heartbeat",
        "heartbeat",
        "Say that the snippet is installed.",
        "key",
        "heartbeat",
        200,
        answers.Ok,
        {"ok": True},
        READING,
    ),
    Operation(
        "POST",
        "/api/v1/heartbeat",
        "sendHeartbeat",
        "The same, for sendBeacon. A body is not looked at.",
        "key",
        "heartbeat",
        200,
        answers.Ok,
        {"ok": True},
        READING,
    ),
    Operation(
        "GET",
        "/api/v1/flows",
        "flows",
        "Every published flow, with its steps and its targeting.",
        "key",
        "flows",
        200,
        answers.Flows,
        {"flows": [examples.FLOW]},
        READING,
        not_modified=True,
    ),
    Operation(
        "GET",
        "/api/v1/flows/{id}",
        "flow",
        "One published flow.",
        "key",
        "flows",
        200,
        answers.Flow,
        examples.FLOW,
        READING_ONE,
        not_modified=True,
    ),
    Operation(
        "POST",
        "/api/v1/flows/{id}/complete",
        "completeFlow",
        "A person has completed the flow: an event like any other.",
        "key",
        "flows",
        202,
        answers.Accepted,
        {"accepted": 1},
        WRITING_TO_ONE,
        Completion,
        {"id": "7b1f4f86-3a55-4a64-9d5c-52b6a9e3c702", "sessionId": "s-1", "userId": "ada@example.com"},
        body_required=False,
    ),
    Operation(
        "GET",
        "/api/v1/flows/{id}/checklist-progress",
        "checklistProgress",
        "What a person has done of a published checklist.",
        "key",
        "flows",
        200,
        answers.Progress,
        examples.PROGRESS,
        READING_ONE,
        query=_PERSON,
    ),
    Operation(
        "POST",
        "/api/v1/flows/{id}/checklist-progress",
        "reportProgress",
        "A person has done a step of a checklist, or has taken that back. Not kept of a browser that asks for privacy.",
        "key",
        "flows",
        202,
        answers.Accepted,
        {"accepted": 1},
        WRITING_TO_ONE,
        ProgressReport,
        {"stepId": examples.STEP_ID, "completed": True, "userId": "ada@example.com"},
    ),
    Operation(
        "POST",
        "/api/v1/steps/{id}/fingerprint",
        "sendFingerprint",
        "How to find the element of a step again.",
        "key",
        "fingerprint",
        202,
        answers.Accepted,
        {"accepted": 1},
        WRITING_TO_ONE,
        FingerprintReport,
        {"fingerprint": {"tag": "button", "text": "Invite"}, "url": "https://app.example.com/projects"},
    ),
    Operation(
        "POST",
        "/api/v1/steps/{id}/health",
        "sendHealth",
        "Whether the element of a step was on the page.",
        "key",
        "health",
        202,
        answers.Accepted,
        {"accepted": 1},
        WRITING_TO_ONE,
        HealthReport,
        {"found": True, "url": "https://app.example.com/projects"},
    ),
    Operation(
        "GET",
        "/api/v1/snippet-status",
        "snippetStatus",
        "Whether the snippet is installed, and where.",
        "key",
        "status",
        200,
        answers.SnippetStatus,
        {"installed": True, "lastSeenAt": "2026-03-30T12:00:00.000Z", "hosts": ["app.example.com"]},
        READING,
    ),
    Operation(
        "GET",
        "/api/v1/flows/{id}/analytics",
        "analytics",
        "The numbers of a flow.",
        "session",
        "analytics",
        200,
        answers.Analytics,
        examples.ANALYTICS,
        READING_NUMBERS,
        query=_RANGE,
    ),
    Operation(
        "GET",
        "/api/v1/flows/{id}/analytics/export.csv",
        "exportAnalytics",
        "The same numbers as a file: a row for every day, or hour, and step.",
        "session",
        "analytics",
        200,
        "text/csv",
        None,
        READING_NUMBERS,
        query=_RANGE,
    ),
    Operation(
        "GET",
        "/api/v1/openapi.json",
        "openapi",
        "This document.",
        "none",
        None,
        200,
        None,
        None,
        (429, 431, 500),
        not_modified=True,
    ),
)
