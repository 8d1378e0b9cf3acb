"""Leases of jobs that one control plane at a time does."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leaderships",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=128), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("term >= 0", name=op.f("ck_leaderships_term")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leaderships")),
    )


def downgrade() -> None:
    op.drop_table("leaderships")
