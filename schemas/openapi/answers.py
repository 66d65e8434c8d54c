"""The bodies of answers as types, for the document; a test holds real answers to them field by field."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from schemas.ids import UUID_PATTERN

Uuid = Annotated[str, msgspec.Meta(pattern=UUID_PATTERN)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class Error(msgspec.Struct):
    """The shape of every error."""

    error: str


class Problem(msgspec.Struct):
    """One bad field: its path, such as `events[0].eventType`, and what is wrong with it."""

    path: str
    message: str


class Invalid(msgspec.Struct):
    """Every bad field, at most 20. Malformed JSON is one problem at the path `""`."""

    error: Literal["Validation failed"]
    details: Annotated[list[Problem], msgspec.Meta(min_length=1, max_length=20)]


class RateLimited(msgspec.Struct, rename="camel"):
    """Over the limit; `retryAfter` are the seconds of the Retry-After header."""

    error: Literal["Rate limit exceeded"]
    retry_after: Annotated[int, msgspec.Meta(ge=1)]


class Accepted(msgspec.Struct):
    """How much is durable now."""

    accepted: Count


class Ok(msgspec.Struct):
    """The sign of life was taken."""

    ok: bool


class FlowStep(msgspec.Struct, rename="camel"):
    """`content` is what the snippet shows."""

    step_id: Uuid
    position: int
    name: str
    content: dict[str, Any]


class Flow(msgspec.Struct, rename="camel"):
    """A published flow. `targeting` tells the snippet whom to show it to, and where."""

    flow_id: Uuid
    name: str
    type: str
    targeting: dict[str, Any]
    published_at: Instant
    steps: list[FlowStep]


class Flows(msgspec.Struct):
    """Every published flow of the organisation, by name."""

    flows: list[Flow]


class ChecklistItem(msgspec.Struct, rename="camel"):
    """`updatedAt` is null where the person never said anything of the step."""

    step_id: Uuid
    completed: bool
    updated_at: Instant | None


class Progress(msgspec.Struct, rename="camel"):
    """What one person has done of a checklist, as far as it is counted."""

    flow_id: Uuid
    completed: Count
    total: Count
    items: list[ChecklistItem]


class SnippetStatus(msgspec.Struct, rename="camel"):
    """Whether a heartbeat was ever counted, the last one's time, and the hosts of the pages."""

    installed: bool
    last_seen_at: Instant | None
    hosts: list[str]


class Totals(msgspec.Struct, rename="camel"):
    """Rates and the median belong to the sessions that started in the range."""

    views: Count
    starts: Count
    completions: Count
    dismissals: Count
    skips: Count
    sessions: Count
    unique_users: Count
    completion_rate: Rate
    dismiss_rate: Rate
    median_seconds_to_complete: float | None


class StepNumbers(msgspec.Struct, rename="camel"):
    """`dropOff` counts the sessions whose furthest step it is and that did not complete."""

    step_id: Uuid
    position: int
    name: str
    views: Count
    completions: Count
    skips: Count
    dismissals: Count
    sessions: Count
    unique_users: Count
    drop_off: Count
    drop_off_rate: Rate


class IntervalNumbers(msgspec.Struct, rename="camel"):
    """One local day or hour."""

    start: Instant
    views: Count
    starts: Count
    completions: Count
    dismissals: Count
    skips: Count
    sessions: Count
    unique_users: Count


class CustomEvent(msgspec.Struct, rename="camel"):
    """A custom event that names this flow or none."""

    name: str
    count: Count
    unique_users: Count


class Analytics(msgspec.Struct, rename="camel"):
    """The numbers of a flow. Everything accepted before `processedThrough` is counted; null where nothing came yet."""

    flow_id: Uuid
    flow_name: str
    flow_type: str
    from_: Instant = msgspec.field(name="from")
    to: Instant
    interval: Literal["day", "hour"]
    timezone: str
    totals: Totals
    steps: list[StepNumbers]
    series: list[IntervalNumbers]
    custom_events: list[CustomEvent]
    processed_through: Instant | None
    lag_seconds: Annotated[float, msgspec.Meta(ge=0)] | None
