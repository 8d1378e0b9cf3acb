"""Lists of workloads in the order of hosts, projects and images are read from an index."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_ORDERS = ("host_id", "project_id", "image_id", "updated_at")
_COVERED = ("image_id", "updated_at")


def upgrade() -> None:
    for column in _ORDERS:
        op.create_index(f"ix_workloads_{column}_id", "workloads", [column, "id"], unique=False)
    for column in _COVERED:
        op.drop_index(f"ix_workloads_{column}", table_name="workloads")


def downgrade() -> None:
    for column in _COVERED:
        op.create_index(f"ix_workloads_{column}", "workloads", [column], unique=False)
    for column in _ORDERS:
        op.drop_index(f"ix_workloads_{column}_id", table_name="workloads")
