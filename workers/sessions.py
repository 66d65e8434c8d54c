"""A session of a flow: which events are of it, and what becomes of what is known of it. Pure."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from backends.store.counting import SessionRow
from workers.items import Item

SessionKey = tuple[str, str, str]
"""Organisation, flow, and a digest of the client's session id."""


def by_session(items: Iterable[Item]) -> dict[SessionKey, list[Item]]:
    """Without what names no session or no flow."""
    found: dict[tuple[str, str, str], list[Item]] = defaultdict(list)
    for item in items:
        if item.event is not None and item.flow is not None and item.event.session:
            found[item.organisation, item.flow, item.event.session].append(item)
    return {(organisation, flow, _digest(session)): of for (organisation, flow, session), of in found.items()}


def _digest(session: str) -> str:
    return hashlib.blake2b(session.encode(), digest_size=16).hexdigest()


def advance(known: SessionRow | None, events: Sequence[Item], positions: Mapping[str, int]) -> SessionRow:
    """What the session is with these events of it, one or more, in the order of their arrival."""
    row = known or SessionRow(first_at=2**63 - 1)
    first = min([row.first_at, *[item.at for item in events]])
    started, completed = row.started_at, row.completed_at
    dismissed, steps, furthest = row.dismissed, list(row.steps), row.furthest
    viewed = False
    for item in events:
        at, kind, step = item.at, item.event.type if item.event is not None else None, item.step
        if kind == "view":
            viewed = True
            if started is None or at < started:
                started = at
            if step and step not in steps:
                steps.append(step)
        elif kind == "complete" and step is None:
            if completed is None or at < completed:
                completed = at
        elif kind == "dismiss":
            dismissed = True
    if viewed and steps:
        furthest = max([(positions.get(step, -1), step) for step in steps])[1]
    return SessionRow(first, started, completed, dismissed, tuple(steps), furthest, row.timed)
