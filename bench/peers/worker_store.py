"""What every worker peer does with a batch: remember its ids, count the new ones by hour, in one transaction.

Also their command line. Ids are PostgreSQL's own UUIDs and rows travel as arrays, which is the quickest way psycopg has
without COPY (which knows no ON CONFLICT).
"""

import argparse
from collections.abc import Iterable

import orjson
import psycopg

SEEN = """
INSERT INTO peer_seen SELECT * FROM unnest(%s::uuid[], %s::uuid[])
ON CONFLICT DO NOTHING RETURNING organisation::text, event_id::text
"""
COUNTS = """
INSERT INTO peer_counts
SELECT * FROM unnest(
    %s::uuid[], %s::uuid[], %s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]
)
ON CONFLICT (organisation, flow, step, hour) DO UPDATE SET
    views = peer_counts.views + excluded.views, completions = peer_counts.completions + excluded.completions,
    skips = peer_counts.skips + excluded.skips, dismissals = peer_counts.dismissals + excluded.dismissals
"""
COLUMNS = {"view": 0, "complete": 1, "skip": 2, "dismiss": 3}
WHOLE_FLOW = "00000000-0000-0000-0000-000000000000"
HOUR_MS = 3_600_000


class Store:
    """One connection."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def count(self, values: Iterable[bytes]) -> None:
        """A batch of records. Returns when it is committed; a record that comes again changes nothing."""
        events = {}
        for value in values:
            for line in value.splitlines():
                envelope = orjson.loads(line)
                organisation = envelope["org"]
                for event in envelope["events"]:
                    events[organisation, event["id"]] = event
        if not events:
            return
        organisations, ids = zip(*sorted(events), strict=True)
        with self._connection.transaction():
            new = self._connection.execute(SEEN, (list(organisations), list(ids))).fetchall()
            cells: dict[tuple[str, str, str, int], list[int]] = {}
            for organisation, event_id in new:
                event = events[organisation, event_id]
                hour = event["time"] // HOUR_MS
                cell = cells.setdefault((organisation, event["flow"], event.get("step", WHOLE_FLOW), hour), [0] * 4)
                cell[COLUMNS[event["type"]]] += 1
            rows = [(*key, *counts) for key, counts in sorted(cells.items())]
            if rows:
                self._connection.execute(COUNTS, [list(column) for column in zip(*rows, strict=True)])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--records", type=int, required=True, help="of a batch")
    return parser.parse_args()
