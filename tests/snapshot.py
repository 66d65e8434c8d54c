"""What workers write as plain values, to be compared: sketches by what they say, without what the log's clock says."""

from typing import Any

import sqlalchemy as sa
from datasketches import kll_floats_sketch

from schemas import sketches
from schemas import tables as t

CATALOGUE = {
    *("organisations", "organisation_limits", "organisation_privacy", "snippet_keys", "members", "flows", "steps"),
}
PROOF = {"accepted", "forgotten", "pruned"}
COUNTED = {
    *("seen", "counts", "custom_events", "custom_names", "cohorts", "sessions"),
    *("heartbeats", "checklist_progress", "step_fingerprints", "step_health", "step_health_days"),
}


def snapshot(engine: sa.Engine) -> dict[str, list[dict[str, Any]]]:
    """Every table but the catalogue's, each in the order of its primary key."""
    with engine.connect() as connection:
        return {
            str(table.name): [
                _plain(table.name, {str(k): v for k, v in row.items()}) for row in _rows(connection, table)
            ]
            for table in t.metadata.sorted_tables
            if table.name not in CATALOGUE | PROOF
        }


def _rows(connection: sa.Connection, table: sa.Table) -> Any:
    return connection.execute(sa.select(table).order_by(*table.primary_key)).mappings()


def _plain(table: str, row: dict[str, Any]) -> dict[str, Any]:
    if row.get("users") is not None:
        row["users"] = sketches.count_users([row["users"]])
    if row.get("seconds") is not None:
        sketch = kll_floats_sketch.deserialize(row["seconds"])
        row["seconds"] = {"n": sketch.n, "median": sketches.median([row["seconds"]])}
    if table == "step_fingerprints":
        row["fingerprint"] = row["fingerprint"].decode()
    elif table == "offsets":
        del row["processed_through"], row["identity"]  # the log's clock, and its own name for the topic
    elif table == "rejected":
        del row["replayed_at"]
        row["body"] = row["body"].decode("latin-1")
        if row["reason"] == "unreadable":
            del row["received_at"]  # the log's clock
    return row
