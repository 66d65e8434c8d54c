"""What a client may send to the small routes, as types that take a good body. All of it is our decision.

Unknown fields are ignored. An `id` is the key of de-duplication, as an event's is.
"""

import hashlib

import msgspec

from schemas.events import Link, Text128, Text255, Time
from schemas.records import Uuid

MAX_SMALL_BYTES = 32 * 1024  # a whole body
MAX_FINGERPRINT_BYTES = 16 * 1024


class Completion(msgspec.Struct, rename="camel", kw_only=True):
    """POST /flows/{id}/complete: becomes a `complete` event of the whole flow."""

    id: Uuid | None = None
    user_id: Text255 | None = None
    anonymous_id: Text128 | None = None
    session_id: Text128 | None = None
    timestamp: Time | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class ProgressReport(msgspec.Struct, rename="camel", kw_only=True):
    """POST /flows/{id}/checklist-progress: a person has done a step, or has not. One of the person's ids is needed."""

    step_id: Uuid
    completed: bool = True
    user_id: Text255 | None = None
    anonymous_id: Text128 | None = None
    id: Uuid | None = None
    timestamp: Time | None = None


class FingerprintReport(msgspec.Struct, rename="camel", kw_only=True):
    """POST /steps/{id}/fingerprint: how to find the step's element again; at most MAX_FINGERPRINT_BYTES."""

    fingerprint: dict[str, msgspec.Raw]
    url: Link | None = None
    id: Uuid | None = None
    timestamp: Time | None = None


class HealthReport(msgspec.Struct, rename="camel", kw_only=True):
    """POST /steps/{id}/health: whether the step's element was on the page."""

    found: bool
    url: Link | None = None
    id: Uuid | None = None
    timestamp: Time | None = None


def person_digest(user: str | None, anonymous: str | None) -> str:
    """Whom a checklist's progress belongs to: 32 hex digits of the user's hash, or else of the anonymous id."""
    person = f"u:{user}" if user is not None else f"a:{anonymous}"
    return hashlib.blake2b(person.encode(), digest_size=16).hexdigest()
