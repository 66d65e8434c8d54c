"""What the edge reads back of the small writes: a person's progress, and where the snippet was seen."""

from typing import NamedTuple

import sqlalchemy as sa

from backends.store.engine import read_only
from schemas import tables as t


class Done(NamedTuple):
    """What was last said of a step, and when (epoch ms)."""

    completed: bool
    at: int


class SmallReads:
    """Blocking; one query a call, by a primary key. Raises SQLAlchemy's errors where the store is away."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = read_only(engine)

    def progress(self, organisation: str, flow: str, person: str) -> dict[str, Done]:
        """By step id, of the steps that something was said of. `person` is a schemas.small.person_digest."""
        p = t.checklist_progress.c
        where = (p.organisation_id == organisation, p.flow_id == flow, p.person == person)
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(p.step_id, p.completed, p.at).where(*where))
            return {step: Done(completed, at) for step, completed, at in rows}

    def hosts(self, organisation: str) -> dict[str, int]:
        """When (epoch ms) the snippet was last seen, by host, the latest first; an empty host is one nobody named."""
        h = t.heartbeats.c
        query = sa.select(h.host, h.last_seen_at).where(h.organisation_id == organisation)
        with self._engine.begin() as connection:
            rows = connection.execute(query.order_by(h.last_seen_at.desc(), h.host))
            return {host: at for host, at in rows}
