"""Highly available workloads: granted leases, failovers, and the clusters' policies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
NAME = sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)
_BEFORE = (
    "'enrolling', 'installing', 'install_failed', 'ready', 'cordoned', 'draining', "
    "'maintenance', 'unreachable', 'removing'"
)
_AFTER = (
    "'enrolling', 'installing', 'install_failed', 'ready', 'cordoned', 'draining', "
    "'maintenance', 'unreachable', 'fenced', 'removing'"
)
_CLUSTER_CHECKS = {
    "failover": "failover IN ('automatic', 'manual')",
    "failover_limit": "failover_limit BETWEEN 0 AND 1",
    "ha_lease": "ha_lease > 0",
    "ha_margin": "ha_margin > 0",
    "reserve": "reserve >= 0",
}


def upgrade() -> None:
    for column in (
        sa.Column("failover", sa.String(16), nullable=False, server_default="automatic"),
        sa.Column("failover_limit", sa.Float(), nullable=False, server_default="0.34"),
        sa.Column("reserve", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("ha_lease", sa.Float(), nullable=False, server_default="9"),
        sa.Column("ha_margin", sa.Float(), nullable=False, server_default="2"),
    ):
        op.add_column("clusters", column)
    with op.batch_alter_table("clusters") as batch:  # SQLite makes the table anew
        for name, check in _CLUSTER_CHECKS.items():
            batch.create_check_constraint(op.f(f"ck_clusters_{name}"), check)
    op.add_column(
        "hosts", sa.Column("lease_seconds", sa.Float(), nullable=False, server_default="30")
    )
    op.add_column(
        "hosts", sa.Column("renewals", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column("hosts", sa.Column("known_off", sa.String(16), nullable=True))
    with op.batch_alter_table("hosts") as batch:
        batch.drop_constraint(op.f("ck_hosts_state"), type_="check")
        batch.create_check_constraint(op.f("ck_hosts_state"), f"state IN ({_AFTER})")
    op.add_column("workloads", sa.Column("ha_since", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_workloads_highly_available",
        "workloads",
        ["host_id"],
        sqlite_where=sa.text("ha_since IS NOT NULL"),
        postgresql_where=sa.text("ha_since IS NOT NULL"),
    )
    _create_failovers()
    _create_fence_devices()


def _create_fence_devices() -> None:
    address = sa.String(253).with_variant(sa.String(253, collation="C"), "postgresql")
    op.create_table(
        "fence_devices",
        sa.Column("id", ID, nullable=False),
        sa.Column("host_id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("agent", sa.String(16), nullable=False),
        sa.Column("address", address, nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("system", sa.String(256), nullable=True),
        sa.Column("verify", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("agent IN ('ipmi', 'redfish')", name=op.f("ck_fence_devices_agent")),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_fence_devices_port")),
        sa.CheckConstraint("level >= 1", name=op.f("ck_fence_devices_level")),
        sa.ForeignKeyConstraint(
            ["host_id"],
            ["hosts.id"],
            name=op.f("fk_fence_devices_host_id_hosts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fence_devices")),
        sa.UniqueConstraint("host_id", "name", name=op.f("uq_fence_devices_host_id_name")),
    )


def _create_failovers() -> None:
    op.create_table(
        "failovers",
        sa.Column("id", ID, nullable=False),
        sa.Column("workload_id", ID, nullable=False),
        sa.Column("workload_name", NAME, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("lost_host_id", ID, nullable=True),
        sa.Column("target_host_id", ID, nullable=True),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("release", sa.String(16), nullable=True),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("claim_vcpus", sa.BigInteger(), nullable=False),
        sa.Column("claim_memory", sa.BigInteger(), nullable=False),
        sa.Column("claim_disk", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "phase IN ('waiting', 'restarted', 'done', 'recovered', 'ended')",
            name=op.f("ck_failovers_phase"),
        ),
        sa.CheckConstraint(
            "release IN ('self_fenced', 'fenced', 'confirmed')", name=op.f("ck_failovers_release")
        ),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (phase IN ('waiting', 'restarted'))",
            name=op.f("ck_failovers_finished"),
        ),
        *(
            sa.CheckConstraint(f"claim_{what} >= 0", name=op.f(f"ck_failovers_claim_{what}"))
            for what in ("vcpus", "memory", "disk")
        ),
        *(
            sa.ForeignKeyConstraint(
                [column],
                [f"{table}.id"],
                name=op.f(f"fk_failovers_{column}_{table}"),
                ondelete=ondelete,
            )
            for column, table, ondelete in (
                ("project_id", "projects", "CASCADE"),
                ("lost_host_id", "hosts", "SET NULL"),
                ("target_host_id", "hosts", "SET NULL"),
            )
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failovers")),
    )
    for column in ("project_id", "lost_host_id", "target_host_id"):
        op.create_index(op.f(f"ix_failovers_{column}"), "failovers", [column])
    op.create_index("ix_failovers_created_at_id", "failovers", ["created_at", "id"])
    op.create_index(
        "uq_failovers_one_at_a_time",
        "failovers",
        ["workload_id", "lost_host_id"],
        unique=True,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("fence_devices")
    op.drop_table("failovers")
    op.drop_index("ix_workloads_highly_available", table_name="workloads")
    op.drop_column("workloads", "ha_since")
    op.get_bind().exec_driver_sql("UPDATE hosts SET state = 'unreachable' WHERE state = 'fenced'")
    with op.batch_alter_table("hosts") as batch:
        batch.drop_constraint(op.f("ck_hosts_state"), type_="check")
        batch.create_check_constraint(op.f("ck_hosts_state"), f"state IN ({_BEFORE})")
        batch.drop_column("known_off")
        batch.drop_column("renewals")
        batch.drop_column("lease_seconds")
    with op.batch_alter_table("clusters") as batch:
        for name in _CLUSTER_CHECKS:
            batch.drop_constraint(op.f(f"ck_clusters_{name}"), type_="check")
            batch.drop_column(name)
