"""Which CA has issued a host's certificate, and which ones its agent trusts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("hosts", sa.Column("certificate_issuer", sa.String(length=64), nullable=True))
    op.add_column("hosts", sa.Column("trusted_authorities", JSON, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("hosts") as batch:
        batch.drop_column("trusted_authorities")
        batch.drop_column("certificate_issuer")
