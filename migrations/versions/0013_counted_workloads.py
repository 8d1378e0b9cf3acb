"""Workloads are counted by kind and state from an index."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_workloads_counted", "workloads", ["kind", "init", "state", "project_id"], unique=False
    )


def downgrade() -> None:
    op.drop_index("ix_workloads_counted", table_name="workloads")
