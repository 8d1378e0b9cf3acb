"""Placed workloads with affinity rules are found by an index: each placement asks for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_PLACED_WITH_RULES = "host_id IS NOT NULL AND spec -> 'placement' -> 'affinity' <> '[]'"


def upgrade() -> None:
    op.create_index(
        "ix_workloads_with_affinity",
        "workloads",
        ["project_id"],
        unique=False,
        sqlite_where=sa.text(_PLACED_WITH_RULES),
        postgresql_where=sa.text(_PLACED_WITH_RULES),
    )


def downgrade() -> None:
    op.drop_index("ix_workloads_with_affinity", table_name="workloads")
