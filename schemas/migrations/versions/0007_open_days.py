"""The cells of a day are summed up when it is over; until then it is open, and its quarters are what readers add up.

All days are closed to begin with, since their cells are complete. A worker of the release before may run beside new
ones; a reader of it shows of a day what its cells had when it was opened, until the day is over.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "open_days",
        sa.Column("organisation_id", sa.String(36), nullable=False),
        sa.Column("flow_id", sa.String(36), nullable=False),
        sa.Column("bucket", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("organisation_id", "flow_id", "bucket"),
    )
