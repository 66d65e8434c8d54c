"""An organisation's own rate limits and privacy settings."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "organisation_limits",
        sa.Column("organisation_id", sa.String(length=36), nullable=False),
        sa.Column("bucket", sa.String(length=32), nullable=False),
        sa.Column("per_minute", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("organisation_id", "bucket"),
    )
    op.create_table(
        "organisation_privacy",
        sa.Column("organisation_id", sa.String(length=36), nullable=False),
        sa.Column("gpc", sa.String(length=16), nullable=False),
        sa.Column("dnt", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("organisation_id"),
    )
