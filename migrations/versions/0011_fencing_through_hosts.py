"""Fence devices may be reached through a host; workloads may be restarted without their volumes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("fence_devices", sa.Column("via", sa.String(length=36), nullable=True))
    op.add_column(
        "hosts",
        sa.Column("without_volumes", sa.Boolean(), nullable=False, server_default=sa.false()),
    )


def downgrade() -> None:
    with op.batch_alter_table("hosts") as batch:
        batch.drop_column("without_volumes")
    with op.batch_alter_table("fence_devices") as batch:
        batch.drop_column("via")
