"""What the small writes leave: progress on checklists, and how each step's element is found."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STEP = ("organisation_id", "flow_id", "step_id")


def upgrade() -> None:
    op.create_table(
        "checklist_progress",
        *_ids("organisation_id", "flow_id"),
        sa.Column("person", sa.String(length=32), nullable=False),
        *_ids("step_id"),
        sa.Column("completed", sa.Boolean(), nullable=False),
        *_latest(),
        sa.PrimaryKeyConstraint("organisation_id", "flow_id", "person", "step_id"),
    )
    op.create_table(
        "step_fingerprints",
        *_ids(*STEP),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("url", sa.String(length=2048)),
        *_latest(),
        sa.PrimaryKeyConstraint(*STEP),
    )
    op.create_table(
        "step_health",
        *_ids(*STEP),
        sa.Column("found", sa.Boolean(), nullable=False),
        sa.Column("url", sa.String(length=2048)),
        *_latest(),
        sa.PrimaryKeyConstraint(*STEP),
    )
    op.create_table(
        "step_health_days",
        *_ids(*STEP),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("found", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("missing", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint(*STEP, "day"),
    )


def _ids(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(length=36), nullable=False) for name in names]


def _latest() -> list[sa.Column[int] | sa.Column[str]]:
    return [
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("report_id", sa.Uuid(as_uuid=False), nullable=False),
    ]
