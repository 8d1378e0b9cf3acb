"""More states of hosts, and what an operator made of one in a column of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BEFORE = "'enrolling', 'ready', 'cordoned', 'maintenance', 'unreachable'"
_AFTER = (
    "'enrolling', 'installing', 'install_failed', 'ready', 'cordoned', 'draining', "
    "'maintenance', 'unreachable', 'removing'"
)
_SCHEDULING = "'ready', 'cordoned', 'draining', 'maintenance'"


def upgrade() -> None:
    # The release before writes no such column.
    op.add_column(
        "hosts",
        sa.Column("scheduling_state", sa.String(length=16), nullable=False, server_default="ready"),
    )
    _move_cordons()
    with op.batch_alter_table("hosts") as batch:  # SQLite makes the table anew
        batch.create_check_constraint(
            op.f("ck_hosts_scheduling_state"), f"scheduling_state IN ({_SCHEDULING})"
        )
        batch.drop_constraint(op.f("ck_hosts_state"), type_="check")
        batch.create_check_constraint(op.f("ck_hosts_state"), f"state IN ({_AFTER})")


def downgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    added = """facts || '{"cordoned": true}'::jsonb"""
    if sqlite:
        added = "json_set(facts, '$.cordoned', json('true'))"
    for sql in (
        f"UPDATE hosts SET facts = {added} "
        "WHERE state = 'unreachable' AND scheduling_state <> 'ready'",
        "UPDATE hosts SET state = 'cordoned' WHERE state IN ('draining', 'removing')",
        "UPDATE hosts SET state = 'enrolling' WHERE state IN ('installing', 'install_failed')",
    ):
        op.get_bind().exec_driver_sql(sql)
    with op.batch_alter_table("hosts") as batch:
        batch.drop_constraint(op.f("ck_hosts_scheduling_state"), type_="check")
        batch.drop_column("scheduling_state")
        batch.drop_constraint(op.f("ck_hosts_state"), type_="check")
        batch.create_check_constraint(op.f("ck_hosts_state"), f"state IN ({_BEFORE})")


def _move_cordons() -> None:
    """A silent host had its cordon among its facts."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    kept = "facts ->> '$.cordoned' = 1" if sqlite else "facts ->> 'cordoned' = 'true'"
    without = "json_remove(facts, '$.cordoned')" if sqlite else "facts - 'cordoned'"
    op.execute(
        f"""UPDATE hosts SET scheduling_state = CASE
            WHEN state IN ('cordoned', 'maintenance') THEN state
            WHEN state IN ('unreachable', 'enrolling') AND {kept} THEN 'cordoned'
            ELSE 'ready' END"""
    )
    op.execute(f"UPDATE hosts SET facts = {without}")
