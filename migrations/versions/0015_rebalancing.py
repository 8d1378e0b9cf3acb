"""Clusters say how they are rebalanced, and how long they have been out of balance."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

ID = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
_COUNTS = ("imbalance_rounds", "proposed_moves")


def upgrade() -> None:
    # The release before writes no such columns.
    with op.batch_alter_table("clusters") as batch:
        batch.add_column(
            sa.Column("rebalancing", sa.String(length=16), nullable=False, server_default="manual")
        )
        batch.create_check_constraint(
            op.f("ck_clusters_rebalancing"), "rebalancing IN ('manual', 'automatic')"
        )
        batch.add_column(
            sa.Column("rebalancing_threshold", sa.Float(), nullable=False, server_default="0.2")
        )
        batch.create_check_constraint(
            op.f("ck_clusters_rebalancing_threshold"), "rebalancing_threshold > 0"
        )
        for name in _COUNTS:
            batch.add_column(sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
            batch.create_check_constraint(op.f(f"ck_clusters_{name}"), f"{name} >= 0")
    with op.batch_alter_table("migrations") as batch:
        batch.add_column(sa.Column("rebalance_id", ID, nullable=True))
        batch.create_foreign_key(
            op.f("fk_migrations_rebalance_id_operations"),
            "operations",
            ["rebalance_id"],
            ["id"],
            ondelete="SET NULL",
        )
        batch.create_index(op.f("ix_migrations_rebalance_id"), ["rebalance_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("migrations") as batch:
        batch.drop_index(op.f("ix_migrations_rebalance_id"))
        batch.drop_constraint(op.f("fk_migrations_rebalance_id_operations"), type_="foreignkey")
        batch.drop_column("rebalance_id")
    with op.batch_alter_table("clusters") as batch:
        for name in reversed(_COUNTS):
            batch.drop_constraint(op.f(f"ck_clusters_{name}"), type_="check")
            batch.drop_column(name)
        batch.drop_constraint(op.f("ck_clusters_rebalancing_threshold"), type_="check")
        batch.drop_column("rebalancing_threshold")
        batch.drop_constraint(op.f("ck_clusters_rebalancing"), type_="check")
        batch.drop_column("rebalancing")
