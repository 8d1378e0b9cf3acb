"""Hosts may be probing; networks may be VLANs on an interface of the hosts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_STATES_BEFORE = (
    "'enrolling', 'installing', 'install_failed', 'ready', 'cordoned', 'draining', "
    "'maintenance', 'unreachable', 'fenced', 'removing'"
)
_STATES = (
    "'enrolling', 'installing', 'install_failed', 'probing', 'ready', 'cordoned', 'draining', "
    "'maintenance', 'unreachable', 'fenced', 'removing'"
)
_TYPES_BEFORE = "'nat', 'bridge', 'overlay'"
_TYPES = "'nat', 'bridge', 'overlay', 'vlan'"


def upgrade() -> None:
    _check("hosts", "state", _STATES)
    with op.batch_alter_table("networks") as batch:  # SQLite makes the table anew
        batch.add_column(sa.Column("interface", sa.String(length=15), nullable=True))
        batch.add_column(sa.Column("vlan", sa.Integer(), nullable=True))
        batch.create_check_constraint(op.f("ck_networks_vlan"), "vlan BETWEEN 1 AND 4094")
        batch.drop_constraint(op.f("ck_networks_type"), type_="check")
        batch.create_check_constraint(op.f("ck_networks_type"), f"type IN ({_TYPES})")
    op.create_index("uq_networks_interface_vlan", "networks", ["interface", "vlan"], unique=True)


def downgrade() -> None:
    op.execute("UPDATE hosts SET state = 'enrolling' WHERE state = 'probing'")
    op.execute("UPDATE networks SET type = 'bridge', bridge = interface WHERE type = 'vlan'")
    op.drop_index("uq_networks_interface_vlan", "networks")
    with op.batch_alter_table("networks") as batch:
        batch.drop_constraint(op.f("ck_networks_vlan"), type_="check")
        batch.drop_column("vlan")
        batch.drop_column("interface")
        batch.drop_constraint(op.f("ck_networks_type"), type_="check")
        batch.create_check_constraint(op.f("ck_networks_type"), f"type IN ({_TYPES_BEFORE})")
    _check("hosts", "state", _STATES_BEFORE)


def _check(table: str, column: str, values: str) -> None:
    with op.batch_alter_table(table) as batch:
        batch.drop_constraint(op.f(f"ck_{table}_{column}"), type_="check")
        batch.create_check_constraint(op.f(f"ck_{table}_{column}"), f"{column} IN ({values})")
