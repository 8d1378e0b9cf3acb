"""Migrations: workloads on their way from one host to another."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "migrations",
        sa.Column("id", ID, nullable=False),
        sa.Column("workload_id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("source_host_id", ID, nullable=True),
        sa.Column("target_host_id", ID, nullable=True),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("operation_id", ID, nullable=False),
        sa.Column("drain_id", ID, nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("claim_vcpus", sa.BigInteger(), nullable=False),
        sa.Column("claim_memory", sa.BigInteger(), nullable=False),
        sa.Column("claim_disk", sa.BigInteger(), nullable=False),
        sa.Column("placement", JSON, nullable=True),
        sa.Column("leftovers", JSON, nullable=False),
        sa.Column("cancelling", sa.Boolean(), nullable=False),
        sa.Column("copied", sa.BigInteger(), nullable=False),
        sa.Column("error", JSON, nullable=True),
        sa.Column("owner", sa.String(length=128), nullable=True),
        sa.Column("lease_expires_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (phase NOT IN ('done', 'failed'))",
            name=op.f("ck_migrations_finished"),
        ),
        sa.CheckConstraint("mode IN ('cold')", name=op.f("ck_migrations_mode")),
        sa.CheckConstraint(
            "phase IN ('planned', 'stopping', 'copying', 'starting', 'cleaning', 'done', 'failed')",
            name=op.f("ck_migrations_phase"),
        ),
        sa.CheckConstraint("claim_disk >= 0", name=op.f("ck_migrations_claim_disk")),
        sa.CheckConstraint("claim_memory >= 0", name=op.f("ck_migrations_claim_memory")),
        sa.CheckConstraint("claim_vcpus >= 0", name=op.f("ck_migrations_claim_vcpus")),
        sa.CheckConstraint("copied >= 0", name=op.f("ck_migrations_copied")),
        sa.CheckConstraint("generation >= 0", name=op.f("ck_migrations_generation")),
        sa.CheckConstraint("revision >= 0", name=op.f("ck_migrations_revision")),
        sa.ForeignKeyConstraint(
            ["drain_id"],
            ["operations.id"],
            name=op.f("fk_migrations_drain_id_operations"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["operation_id"],
            ["operations.id"],
            name=op.f("fk_migrations_operation_id_operations"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_migrations_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["source_host_id"],
            ["hosts.id"],
            name=op.f("fk_migrations_source_host_id_hosts"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["target_host_id"],
            ["hosts.id"],
            name=op.f("fk_migrations_target_host_id_hosts"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["workload_id"],
            ["workloads.id"],
            name=op.f("fk_migrations_workload_id_workloads"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_migrations")),
    )
    op.create_index("ix_migrations_created_at_id", "migrations", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_migrations_drain_id"), "migrations", ["drain_id"], unique=False)
    op.create_index(
        "ix_migrations_phase_created_at", "migrations", ["phase", "created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_migrations_project_id"), "migrations", ["project_id"], unique=False)
    op.create_index(
        op.f("ix_migrations_source_host_id"), "migrations", ["source_host_id"], unique=False
    )
    op.create_index(
        op.f("ix_migrations_target_host_id"), "migrations", ["target_host_id"], unique=False
    )
    op.create_index(op.f("ix_migrations_workload_id"), "migrations", ["workload_id"], unique=False)
    op.create_index(
        "uq_migrations_one_at_a_time",
        "migrations",
        ["workload_id"],
        unique=True,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("migrations")
