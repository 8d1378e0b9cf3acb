"""Which sync of a host was taken in last: one that comes late must not undo what came after."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The release before writes no such columns.
    op.add_column(
        "hosts", sa.Column("sync_run", sa.String(length=36), nullable=False, server_default="")
    )
    op.add_column(
        "hosts",
        sa.Column("sync_run_before", sa.String(length=36), nullable=False, server_default=""),
    )
    op.add_column(
        "hosts", sa.Column("sync_number", sa.BigInteger(), nullable=False, server_default="0")
    )


def downgrade() -> None:
    with op.batch_alter_table("hosts") as batch:
        batch.drop_column("sync_number")
        batch.drop_column("sync_run_before")
        batch.drop_column("sync_run")
