"""Examples of bodies and answers in the document; a test holds them to their schemas."""

FLOW_ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
STEP_ID = "aa6a8a52-6e0e-4f0e-8f2b-6f1d1f0d9e01"

_NUMBERS = {"views": 2, "starts": 1, "completions": 1, "dismissals": 0, "skips": 0, "sessions": 1, "uniqueUsers": 1}
ANALYTICS = {
    "flowId": FLOW_ID,
    "flowName": "Welcome tour",
    "flowType": "tour",
    "from": "2026-03-30T00:00:00+02:00",
    "to": "2026-03-31T00:00:00+02:00",
    "interval": "day",
    "timezone": "Europe/Berlin",
    "totals": {**_NUMBERS, "completionRate": 1.0, "dismissRate": 0.0, "medianSecondsToComplete": 42.0},
    "steps": [
        {
            "stepId": STEP_ID,
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
FLOW = {
    "flowId": FLOW_ID,
    "name": "Welcome tour",
    "type": "tour",
    "targeting": {"urlPattern": "/projects*"},
    "publishedAt": "2026-03-30T12:00:00.000Z",
    "steps": [{"stepId": STEP_ID, "position": 0, "name": "Welcome", "content": {"title": "Hello"}}],
}
PROGRESS = {
    "flowId": FLOW_ID,
    "completed": 1,
    "total": 1,
    "items": [{"stepId": STEP_ID, "completed": True, "updatedAt": "2026-03-30T12:00:00.000Z"}],
}
EVENTS = {
    "events": [
        {
            "id": "7b1f4f86-3a55-4a64-9d5c-52b6a9e3c701",
            "eventType": "view",
            "flowId": FLOW_ID,
            "stepId": STEP_ID,
            "sessionId": "s-1",
            "userId": "ada@example.com",
            "timestamp": "2026-03-30T12:00:00Z",
            "url": "https://app.example.com/projects",
        },
        {"eventType": "custom", "name": "invited", "anonymousId": "b-17", "data": {"seats": 3}},
    ],
    "sentAt": "2026-03-30T12:00:01Z",
}
