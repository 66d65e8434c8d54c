"""Every operation in one table. A test holds it to the routes that are served: paths, methods and buckets."""

from typing import Any, Literal, NamedTuple

from schemas.events import EventsRequest
from schemas.openapi import answers

Credential = Literal["key", "session", "none"]

FLOW = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
STEP = "aa6a8a52-6e0e-4f0e-8f2b-6f1d1f0d9e01"
READING = (401, 429, 431, 500, 503)
WRITING = (400, 401, 408, 413, 415, 429, 431, 500, 503)


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
_NUMBERS = {"views": 2, "starts": 1, "completions": 1, "dismissals": 0, "skips": 0, "sessions": 1, "uniqueUsers": 1}
_ANALYTICS = {
    "flowId": FLOW,
    "flowName": "Welcome tour",
    "flowType": "tour",
    "from": "2026-03-30T00:00:00+02:00",
    "to": "2026-03-31T00:00:00+02:00",
    "interval": "day",
    "timezone": "Europe/Berlin",
    "totals": {**_NUMBERS, "completionRate": 1.0, "dismissRate": 0.0, "medianSecondsToComplete": 42.0},
    "steps": [
        {
            "stepId": STEP,
            "position": 0,
            "name": "Welcome",
            "views": 1,
            "completions": 1,
            "skips": 0,
            "dismissals": 0,
            "sessions": 1,
            "uniqueUsers": 1,
            "dropOff": 0,
            "dropOffRate": 0.0,
        }
    ],
    "series": [{"start": "2026-03-30T00:00:00+02:00", **_NUMBERS}],
    "customEvents": [{"name": "invited", "count": 1, "uniqueUsers": 1}],
    "processedThrough": "2026-03-30T12:00:00.000Z",
    "lagSeconds": 0.4,
}
_EVENTS = {
    "events": [
        {
            "id": "7b1f4f86-3a55-4a64-9d5c-52b6a9e3c701",
            "eventType": "view",
            "flowId": FLOW,
            "stepId": STEP,
            "sessionId": "s-1",
            "userId": "ada@example.com",
            "timestamp": "2026-03-30T12:00:00Z",
            "url": "https://app.example.com/projects",
        },
        {"eventType": "custom", "name": "invited", "anonymousId": "b-17", "data": {"seats": 3}},
    ],
    "sentAt": "2026-03-30T12:00:01Z",
}

OPERATIONS = (
    Operation(
        "POST",
        "/api/v1/events",
        "sendEvents",
        "Send 1 to 50 events. A 202 means that all of them are durable.",
        "key",
        "events",
        202,
        answers.Accepted,
        {"accepted": 2},
        WRITING,
        EventsRequest,
        _EVENTS,
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
        "/api/v1/flows/{id}/analytics",
        "analytics",
        "The numbers of a flow.",
        "session",
        "analytics",
        200,
        answers.Analytics,
        _ANALYTICS,
        (400, 401, 403, 404, 429, 431, 500, 503),
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
        (400, 401, 403, 404, 429, 431, 500, 503),
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
