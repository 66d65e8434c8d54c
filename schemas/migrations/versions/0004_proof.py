"""What reliability is proven with: what edges were promised by the log, which topic an offset is of, what was replayed,
and whom the installation was told to forget.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accepted",
        sa.Column("organisation_id", sa.String(length=36), nullable=False),
        sa.Column("edge", sa.String(length=36), nullable=False),
        sa.Column("topic", sa.String(length=255), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("events", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organisation_id", "edge", "topic", "partition", "outcome"),
    )
    op.create_table(
        "forgotten",
        sa.Column("organisation_id", sa.String(length=36), nullable=False),
        sa.Column("user_digest", sa.String(length=64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organisation_id", "user_digest"),
    )
    op.add_column("offsets", sa.Column("identity", sa.String(length=64)))
    op.add_column("rejected", sa.Column("replayed_at", sa.BigInteger()))
