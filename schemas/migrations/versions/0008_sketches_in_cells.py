"""A cell's sketch stands beside its counters, and what sessions are to a step beside the step's events.

Each batch wrote two or three rows of the same key. Takes some seconds for each million of cells, during which workers
wait. Stop workers and readers of the release before: they ask for tables that are gone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_MOVES = (
    """
    INSERT INTO counts (organisation_id, flow_id, grain, bucket, step_id, sessions, dropped)
    SELECT organisation_id, flow_id, grain, bucket, step_id, sessions, dropped FROM cohort_steps WHERE true
    ON CONFLICT (organisation_id, flow_id, grain, bucket, step_id)
    DO UPDATE SET sessions = excluded.sessions, dropped = excluded.dropped
    """,
    """
    INSERT INTO counts (organisation_id, flow_id, grain, bucket, step_id, users)
    SELECT organisation_id, flow_id, grain, bucket, subject, sketch FROM sketches WHERE kind = 'users'
    ON CONFLICT (organisation_id, flow_id, grain, bucket, step_id) DO UPDATE SET users = excluded.users
    """,
    """
    INSERT INTO custom_events (organisation_id, flow_id, grain, bucket, name, users)
    SELECT organisation_id, flow_id, grain, bucket, subject, sketch FROM sketches WHERE kind = 'custom'
    ON CONFLICT (organisation_id, flow_id, grain, bucket, name) DO UPDATE SET users = excluded.users
    """,
    """
    INSERT INTO cohorts (organisation_id, flow_id, grain, bucket, seconds)
    SELECT organisation_id, flow_id, grain, bucket, sketch FROM sketches WHERE kind = 'seconds'
    ON CONFLICT (organisation_id, flow_id, grain, bucket) DO UPDATE SET seconds = excluded.seconds
    """,
)


def upgrade() -> None:
    for name in ("sessions", "dropped"):
        op.add_column("counts", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    for table, name in (("counts", "users"), ("custom_events", "users"), ("cohorts", "seconds")):
        op.add_column(table, sa.Column(name, sa.LargeBinary()))
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {name} SET STORAGE EXTERNAL")  # they do not compress
    for move in _MOVES:
        op.execute(move)
    op.drop_table("cohort_steps")
    op.drop_table("sketches")
