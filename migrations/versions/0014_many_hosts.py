"""Hosts are found by machine, workloads sorted by size; a lease that is renewed is in no index.

On PostgreSQL the rows that change all the time get room for their next version on the same page,
so that no index is written for it (heap-only tuples).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_SORTED = ("claim_vcpus", "claim_memory")
_FILL = {"hosts": 50, "workloads": 80}  # per cent of a page that inserts fill


def upgrade() -> None:
    op.drop_index("ix_hosts_lease_expires_at", table_name="hosts")
    with op.batch_alter_table("hosts") as batch:
        batch.add_column(sa.Column("machine_id", sa.String(length=64), nullable=True))
    op.create_index("ix_hosts_machine_id", "hosts", ["machine_id"], unique=False)
    for column in _SORTED:
        op.create_index(f"ix_workloads_{column}_id", "workloads", [column, "id"], unique=False)
    postgresql = op.get_bind().dialect.name == "postgresql"
    known = "facts ->> 'machine_id'" if postgresql else "json_extract(facts, '$.machine_id')"
    op.execute(f"UPDATE hosts SET machine_id = nullif({known}, '')")
    if postgresql:
        for table, share in _FILL.items():
            op.execute(f"ALTER TABLE {table} SET (fillfactor = {share})")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in _FILL:
            op.execute(f"ALTER TABLE {table} RESET (fillfactor)")
    for column in _SORTED:
        op.drop_index(f"ix_workloads_{column}_id", table_name="workloads")
    op.drop_index("ix_hosts_machine_id", table_name="hosts")
    with op.batch_alter_table("hosts") as batch:
        batch.drop_column("machine_id")
    op.create_index("ix_hosts_lease_expires_at", "hosts", ["lease_expires_at"], unique=False)
