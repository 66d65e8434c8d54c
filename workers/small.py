"""What a batch's small writes leave: of several reports on one thing the latest, and the health of each day. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from schemas import tables as t
from schemas.records import Fingerprint, Health, Progress
from schemas.small import person_digest
from workers.clock import DAY
from workers.items import Item

Row = dict[str, Any]


class SmallWrites:
    """`latest` are rows by table and primary key, of the tables that keep the latest report; `health` are additions."""

    def __init__(self) -> None:
        self.latest: dict[sa.Table, dict[tuple[Any, ...], Row]] = defaultdict(dict)
        self.health: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
        self.last_seen: dict[tuple[str, str], int] = {}

    def _keep(self, table: sa.Table, row: Row) -> None:
        key = tuple(row[column.name] for column in table.primary_key)
        before = self.latest[table].get(key)
        if before is None or (row["at"], row["report_id"]) > (before["at"], before["report_id"]):
            self.latest[table][key] = row


def fold(items: Iterable[Item]) -> SmallWrites:
    """Events are passed over."""
    small = SmallWrites()
    for item in items:
        if item.event is not None:
            continue
        line = item.line
        if item.host is not None:
            page = (item.organisation, item.host)
            small.last_seen[page] = max(small.last_seen.get(page, 0), line.received)
        if not isinstance(line, Progress | Fingerprint | Health):
            continue
        if isinstance(line, Progress) and line.user is None and line.anon is None:
            continue  # its person was forgotten since
        row: Row = {
            "organisation_id": item.organisation,
            "flow_id": item.flow,
            "step_id": item.step,
            "at": item.at,
            "report_id": item.id,
        }
        if isinstance(line, Progress):
            person = person_digest(line.user, line.anon)
            small._keep(t.checklist_progress, row | {"person": person, "completed": line.completed})
        elif isinstance(line, Fingerprint):
            content = bytes(line.fingerprint)
            small._keep(t.step_fingerprints, row | {"fingerprint": content, "url": line.url})
        else:
            small._keep(t.step_health, row | {"found": line.found, "url": line.url})
            cell = small.health[item.organisation, item.flow, item.step, item.at // DAY]
            cell[0 if line.found else 1] += 1
    return small
