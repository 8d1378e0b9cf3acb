"""Text in the names of workloads and volumes is found by an index, where PostgreSQL has pg_trgm."""

from __future__ import annotations

from alembic import op

from virtmgr.store import trigrams

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_TABLES = ("workloads", "volumes")


def upgrade() -> None:
    trigrams.index_names(op.get_bind(), _TABLES)


def downgrade() -> None:
    # The extension stays: it may have been there before.
    for table in _TABLES:
        op.drop_index(f"ix_{table}_name_trigrams", table_name=table, if_exists=True)
