"""Live migrations: more phases, what the target is to be told, and the policy of clusters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_BEFORE = "'planned', 'stopping', 'copying', 'starting', 'cleaning', 'done', 'failed'"
_AFTER = (
    "'planned', 'stopping', 'copying', 'preparing', 'migrating', 'starting', 'cleaning', "
    "'retreating', 'done', 'failed'"
)
_COUNTS = ("migration_bandwidth", "migration_downtime", "migration_steps")


def upgrade() -> None:
    # The release before writes no such columns.
    with op.batch_alter_table("clusters") as batch:
        batch.add_column(
            sa.Column("cpu", sa.String(length=64), nullable=False, server_default="host")
        )
        for name, default in zip(_COUNTS, ("0", "300", "4"), strict=True):
            batch.add_column(sa.Column(name, sa.Integer(), nullable=False, server_default=default))
            batch.create_check_constraint(op.f(f"ck_clusters_{name}"), f"{name} >= 0")
        batch.add_column(
            sa.Column(
                "migration_convergence",
                sa.String(length=16),
                nullable=False,
                server_default="pause",
            )
        )
        batch.create_check_constraint(
            op.f("ck_clusters_migration_convergence"),
            "migration_convergence IN ('pause', 'give_up')",
        )
    with op.batch_alter_table("migrations") as batch:
        batch.add_column(
            sa.Column("target_revision", sa.BigInteger(), nullable=False, server_default="0")
        )
        batch.add_column(sa.Column("ticket", sa.String(length=64), nullable=True))
        batch.create_check_constraint(op.f("ck_migrations_target_revision"), "target_revision >= 0")
        for column, values in (("mode", "'cold', 'live'"), ("phase", _AFTER)):
            batch.drop_constraint(op.f(f"ck_migrations_{column}"), type_="check")
            batch.create_check_constraint(
                op.f(f"ck_migrations_{column}"), f"{column} IN ({values})"
            )


def downgrade() -> None:
    # One that is under way belongs to neither phase of the release before.
    op.execute(
        "UPDATE migrations SET phase = 'failed', finished_at = updated_at "
        "WHERE phase IN ('preparing', 'migrating', 'retreating')"
    )
    op.execute("UPDATE migrations SET mode = 'cold'")
    with op.batch_alter_table("migrations") as batch:
        for column, values in (("mode", "'cold'"), ("phase", _BEFORE)):
            batch.drop_constraint(op.f(f"ck_migrations_{column}"), type_="check")
            batch.create_check_constraint(
                op.f(f"ck_migrations_{column}"), f"{column} IN ({values})"
            )
        batch.drop_constraint(op.f("ck_migrations_target_revision"), type_="check")
        batch.drop_column("ticket")
        batch.drop_column("target_revision")
    with op.batch_alter_table("clusters") as batch:
        batch.drop_constraint(op.f("ck_clusters_migration_convergence"), type_="check")
        batch.drop_column("migration_convergence")
        for name in reversed(_COUNTS):
            batch.drop_constraint(op.f(f"ck_clusters_{name}"), type_="check")
            batch.drop_column(name)
        batch.drop_column("cpu")
