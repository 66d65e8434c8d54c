"""Scope: what an event names must belong to the organisation of its key. Organisation comes from the key alone."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from backends.store.catalog import Flow
from schemas.records import Fingerprint, Health, Heartbeat, Progress
from schemas.small import MAX_FINGERPRINT_BYTES
from workers.items import Item

FlowKey = tuple[str, str]
"""Organisation and flow."""


class Known(NamedTuple):
    """A flow as scope knows it: its steps' positions, and when it was looked up (seconds, monotonic)."""

    positions: dict[str, int] | None  # None: the organisation has no such flow
    at: float

    def has(self, step: str | None) -> bool:
        """Whether it is there, and this step of it, if any."""
        return self.positions is not None and (step is None or step in self.positions)


class Named:
    """The flows that some items name: the positions of their steps, None of one that the organisation does not have."""

    def __init__(self, flows: Mapping[FlowKey, Mapping[str, int] | None], all_there: bool = False) -> None:
        """`all_there` says that every flow and step that they name is."""
        self._flows = flows
        self._all_there = all_there

    def positions(self, organisation: str, flow: str) -> Mapping[str, int]:
        """The positions of a flow's steps by id; empty for an unknown flow."""
        return self._flows.get((organisation, flow)) or {}

    def problem(self, item: Item) -> str | None:
        """Why this item may not be counted, None where it may."""
        event, flow = item.event, item.flow
        if (event is None or event.type == "custom" or flow is None) and not _complete(item):
            return "invalid"
        if self._all_there or flow is None:
            return None
        positions = self._flows.get((item.organisation, flow))
        if positions is None:
            return "unknown_flow"
        if item.step is not None and item.step not in positions:
            return "unknown_step"
        return None

    def __or__(self, other: "Named") -> "Named":
        return Named({**self._flows, **other._flows}, self._all_there and other._all_there)


class Scope:
    """Flows by (organisation, flow id), looked up in one query a batch, at most `size` of them kept.

    What is missing, a flow or a step of a known flow, is looked up again, though not more than once in `retry` seconds,
    so that a flow published a moment ago counts and a flood of unknown ids costs one query a batch at most.
    """

    def __init__(
        self,
        lookup: Callable[[Iterable[FlowKey]], list[Flow]],
        size: int = 50_000,
        fresh: float = 60.0,
        retry: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._size = size
        self._fresh = fresh
        self._retry = retry
        self._clock = clock
        self._known: OrderedDict[FlowKey, Known] = OrderedDict()

    def look_up(self, items: Iterable[Item]) -> Named:
        """What these items name, as it is now. Raises the store's errors."""
        wanted = {(item.organisation, item.flow, item.step) for item in items if item.flow is not None}
        now = self._clock()
        missing: set[FlowKey] = set()
        for organisation, flow, step in wanted:
            key = (organisation, flow)
            known = self._known.get(key)
            if known is None:
                missing.add(key)
                continue
            self._known.move_to_end(key)
            if now - known.at > (self._fresh if known.has(step) else self._retry):
                missing.add(key)
        if missing:
            found = {(flow.organisation, flow.flow_id): flow for flow in self._lookup(sorted(missing))}
            for key in missing:
                there = found.get(key)
                positions = {step.step_id: step.position for step in there.steps} if there is not None else None
                self._known[key] = Known(positions, now)
                self._known.move_to_end(key)
        flows = {(organisation, flow): self._known[organisation, flow] for organisation, flow, _ in wanted}
        all_there = all(flows[organisation, flow].has(step) for organisation, flow, step in wanted)
        return Named({key: known.positions for key, known in flows.items()}, all_there)

    def trim(self) -> None:
        """Forgets the least used beyond the bound."""
        while len(self._known) > self._size:
            self._known.popitem(last=False)


def _complete(item: Item) -> bool:
    """What the edge made sure of; what else writes to the topic may not have. No text column holds a NUL."""
    event, line = item.event, item.line
    if event is not None:
        if event.type == "custom":
            return bool(event.name) and "\0" not in (event.name or "")
        return event.flow is not None
    if isinstance(line, Heartbeat):
        return "\0" not in (line.host or "")
    if isinstance(line, Progress):
        return line.user is not None or line.anon is not None
    if isinstance(line, Fingerprint):
        content = bytes(line.fingerprint)
        return content[:1] == b"{" and len(content) <= MAX_FINGERPRINT_BYTES and "\0" not in (line.url or "")
    return isinstance(line, Health) and "\0" not in (line.url or "")
