"""Overlay networks: their VXLAN network identifiers, and where hosts' tunnels end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ADDRESS = sa.String(45).with_variant(sa.String(45, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("hosts", sa.Column("tunnel_address", ADDRESS, nullable=True))
    op.add_column("networks", sa.Column("vni", sa.Integer(), nullable=True))
    op.create_index("uq_networks_vni", "networks", ["vni"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_networks_vni", "networks")
    op.drop_column("networks", "vni")
    op.drop_column("hosts", "tunnel_address")
