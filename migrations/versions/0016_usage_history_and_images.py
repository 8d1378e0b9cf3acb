"""What hosts and workloads have used is kept for a day; images have descriptions, and may be
protected."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from virtmgr.store.types import UtcDateTime, identifier

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "usage_history",
        sa.Column("host_id", identifier(), nullable=False),
        sa.Column("seconds", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ends_at", UtcDateTime(), nullable=False),
        sa.Column("points", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"],
            ["hosts.id"],
            name=op.f("fk_usage_history_host_id_hosts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("host_id", "seconds", "ends_at", name=op.f("pk_usage_history")),
    )
    op.create_index(
        "ix_usage_history_seconds_ends_at", "usage_history", ["seconds", "ends_at"], unique=False
    )
    with op.batch_alter_table("images") as batch:
        batch.add_column(sa.Column("description", sa.Text(), nullable=False, server_default=""))
        batch.add_column(
            sa.Column("protected", sa.Boolean(), nullable=False, server_default=sa.false())
        )


def downgrade() -> None:
    with op.batch_alter_table("images") as batch:
        batch.drop_column("protected")
        batch.drop_column("description")
    op.drop_table("usage_history")
