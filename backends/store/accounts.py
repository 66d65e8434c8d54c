"""The books that `zenstep audit` compares: what edges were promised, kept as sums that each edge sets itself."""

from collections.abc import Mapping

import sqlalchemy as sa

from backends.store.engine import read_only, upsert
from schemas import tables as t

ENDED = ""  # stands for all edges that are not heard of any more; see backends/store/retention.py

Place = tuple[str, str, int, str]
"""Organisation, topic, partition (-1 for none yet) and outcome: the key of `accepted` but for the edge."""


class EdgeSums:
    """An edge's own rows. Blocking; every call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reading = read_only(engine)

    def set(self, edge: str, sums: Mapping[Place, int], at: int) -> None:
        """Sets rows to these sums, in the order given. A smaller one than is there, from a write long ago that comes
        late, changes nothing."""
        rows = [
            {
                "organisation_id": organisation,
                "edge": edge,
                "topic": topic,
                "partition": partition,
                "outcome": outcome,
                "events": events,
                "at": at,
            }
            for (organisation, topic, partition, outcome), events in sums.items()
        ]
        with self._engine.begin() as connection:
            insert = upsert(connection, t.accepted)
            update = insert.on_conflict_do_update(
                index_elements=[column.name for column in t.accepted.primary_key],
                set_={"events": insert.excluded.events, "at": insert.excluded.at},
                where=insert.excluded.events >= t.accepted.c.events,
            )
            connection.execute(update, rows)

    def knows(self, edge: str) -> bool:
        """Whether any row is there under this edge's name."""
        query = sa.select(sa.exists().where(t.accepted.c.edge == edge))
        with self._reading.begin() as connection:
            return bool(connection.execute(query).scalar())
