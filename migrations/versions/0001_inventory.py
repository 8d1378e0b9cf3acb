"""The whole inventory, from projects to events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)
LABELLED = (
    "projects",
    "clusters",
    "hosts",
    "images",
    "networks",
    "workloads",
    "volumes",
)


def text(length: int) -> TypeEngine[str]:
    """Text that sorts by code point on both databases."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "clusters",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", text(63), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("policy", sa.String(length=16), nullable=False),
        sa.Column("overcommit_vcpus", sa.Float(), nullable=False),
        sa.Column("overcommit_memory", sa.Float(), nullable=False),
        sa.Column("overcommit_disk", sa.Float(), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "policy IN ('spread', 'pack', 'balanced')", name=op.f("ck_clusters_policy")
        ),
        sa.CheckConstraint("overcommit_disk > 0", name=op.f("ck_clusters_overcommit_disk")),
        sa.CheckConstraint("overcommit_memory > 0", name=op.f("ck_clusters_overcommit_memory")),
        sa.CheckConstraint("overcommit_vcpus > 0", name=op.f("ck_clusters_overcommit_vcpus")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_clusters_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clusters")),
        sa.UniqueConstraint("name", name=op.f("uq_clusters_name")),
    )
    op.create_table(
        "events",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("target_type", sa.String(length=64), nullable=False),
        sa.Column("target_id", sa.String(length=64), nullable=False),
        sa.Column("target_name", sa.Text(), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=True),
        sa.Column("user_id", sa.String(length=64), nullable=True),
        sa.Column("operation_id", sa.String(length=64), nullable=True),
        sa.Column("host_id", sa.String(length=64), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_events_project_id_sequence", "events", ["project_id", "sequence"], unique=False
    )
    op.create_index(
        "ix_events_target_id_sequence", "events", ["target_id", "sequence"], unique=False
    )
    op.create_index("ix_events_type_sequence", "events", ["type", "sequence"], unique=False)
    op.create_table(
        "images",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", text(128), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("manifest", JSON, nullable=True),
        sa.Column("digest", sa.String(length=128), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("aliases", JSON, nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "state <> 'ready' OR manifest IS NOT NULL", name=op.f("ck_images_ready_has_manifest")
        ),
        sa.CheckConstraint(
            "state IN ('importing', 'ready', 'failed')", name=op.f("ck_images_state")
        ),
        sa.CheckConstraint(
            "type IN ('container', 'disk', 'iso', 'kernel')", name=op.f("ck_images_type")
        ),
        sa.CheckConstraint("size >= 0", name=op.f("ck_images_size")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_images_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("name", name=op.f("uq_images_name")),
    )
    op.create_index(op.f("ix_images_digest"), "images", ["digest"], unique=False)
    op.create_index(op.f("ix_images_state"), "images", ["state"], unique=False)
    op.create_table(
        "projects",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", text(63), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("version >= 1", name=op.f("ck_projects_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects_name")),
    )
    op.create_table(
        "settings",
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_settings")),
    )
    op.create_table(
        "users",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", text(128), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("failed_logins", sa.Integer(), nullable=False),
        sa.Column("locked_until", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("failed_logins >= 0", name=op.f("ck_users_failed_logins")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_users_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )
    op.create_table(
        "hosts",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", text(253), nullable=False),
        sa.Column("cluster_id", ID, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("architecture", sa.String(length=32), nullable=False),
        sa.Column("capacity_vcpus", sa.BigInteger(), nullable=False),
        sa.Column("capacity_memory", sa.BigInteger(), nullable=False),
        sa.Column("capacity_disk", sa.BigInteger(), nullable=False),
        sa.Column("claimed_vcpus", sa.BigInteger(), nullable=False),
        sa.Column("claimed_memory", sa.BigInteger(), nullable=False),
        sa.Column("claimed_disk", sa.BigInteger(), nullable=False),
        sa.Column("facts", JSON, nullable=False),
        sa.Column("certificate_serial", sa.String(length=64), nullable=True),
        sa.Column("previous_certificate_serial", sa.String(length=64), nullable=True),
        sa.Column("certificate_expires_at", MOMENT, nullable=True),
        sa.Column("join_token_hash", sa.String(length=128), nullable=True),
        sa.Column("join_token_expires_at", MOMENT, nullable=True),
        sa.Column("lease_expires_at", MOMENT, nullable=True),
        sa.Column("last_seen_at", MOMENT, nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("prune_nonce", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "state IN ('enrolling', 'ready', 'cordoned', 'maintenance', 'unreachable')",
            name=op.f("ck_hosts_state"),
        ),
        sa.CheckConstraint("capacity_disk >= 0", name=op.f("ck_hosts_capacity_disk")),
        sa.CheckConstraint("capacity_memory >= 0", name=op.f("ck_hosts_capacity_memory")),
        sa.CheckConstraint("capacity_vcpus >= 0", name=op.f("ck_hosts_capacity_vcpus")),
        sa.CheckConstraint("claimed_disk >= 0", name=op.f("ck_hosts_claimed_disk")),
        sa.CheckConstraint("claimed_memory >= 0", name=op.f("ck_hosts_claimed_memory")),
        sa.CheckConstraint("claimed_vcpus >= 0", name=op.f("ck_hosts_claimed_vcpus")),
        sa.CheckConstraint("prune_nonce >= 0", name=op.f("ck_hosts_prune_nonce")),
        sa.CheckConstraint("revision >= 0", name=op.f("ck_hosts_revision")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_hosts_version")),
        sa.ForeignKeyConstraint(
            ["cluster_id"],
            ["clusters.id"],
            name=op.f("fk_hosts_cluster_id_clusters"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
        sa.UniqueConstraint("certificate_serial", name=op.f("uq_hosts_certificate_serial")),
        sa.UniqueConstraint("join_token_hash", name=op.f("uq_hosts_join_token_hash")),
        sa.UniqueConstraint("name", name=op.f("uq_hosts_name")),
    )
    op.create_index(op.f("ix_hosts_cluster_id"), "hosts", ["cluster_id"], unique=False)
    op.create_index(op.f("ix_hosts_lease_expires_at"), "hosts", ["lease_expires_at"], unique=False)
    op.create_index(op.f("ix_hosts_state"), "hosts", ["state"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", ID, nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_hash", sa.String(length=128), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_idempotency_keys_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(
        op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False
    )
    op.create_table(
        "image_blobs",
        sa.Column("image_id", ID, nullable=False),
        sa.Column("digest", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["images.id"],
            name=op.f("fk_image_blobs_image_id_images"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("image_id", "digest", name=op.f("pk_image_blobs")),
    )
    op.create_index(op.f("ix_image_blobs_digest"), "image_blobs", ["digest"], unique=False)
    op.create_table(
        "image_names",
        sa.Column("name", text(128), nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["images.id"],
            name=op.f("fk_image_names_image_id_images"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_image_names")),
    )
    op.create_index(op.f("ix_image_names_image_id"), "image_names", ["image_id"], unique=False)
    op.create_table(
        "networks",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=True),
        sa.Column("name", text(63), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("ipv4", sa.String(length=43), nullable=True),
        sa.Column("ipv6", sa.String(length=43), nullable=True),
        sa.Column("bridge", sa.String(length=15), nullable=True),
        sa.Column("dns_domain", sa.String(length=253), nullable=False),
        sa.Column("mtu", sa.Integer(), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("type IN ('nat', 'bridge', 'overlay')", name=op.f("ck_networks_type")),
        sa.CheckConstraint("mtu BETWEEN 68 AND 65535", name=op.f("ck_networks_mtu")),
        sa.CheckConstraint("revision >= 0", name=op.f("ck_networks_revision")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_networks_version")),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_networks_project_id_projects"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_networks")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_networks_project_id_name")),
    )
    op.create_index(op.f("ix_networks_name"), "networks", ["name"], unique=False)
    op.create_index(
        "uq_networks_shared_name",
        "networks",
        ["name"],
        unique=True,
        sqlite_where=sa.text("project_id IS NULL"),
        postgresql_where=sa.text("project_id IS NULL"),
    )
    op.create_table(
        "operations",
        sa.Column("id", ID, nullable=False),
        sa.Column("verb", sa.String(length=64), nullable=False),
        sa.Column("target_type", sa.String(length=64), nullable=False),
        sa.Column("target_id", sa.String(length=64), nullable=False),
        sa.Column("target_name", sa.Text(), nullable=False),
        sa.Column("project_id", ID, nullable=True),
        sa.Column("user_id", ID, nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("parameters", JSON, nullable=False),
        sa.Column("error", JSON, nullable=True),
        sa.Column("owner", sa.String(length=128), nullable=True),
        sa.Column("lease_expires_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_operations_state"),
        ),
        sa.CheckConstraint("generation >= 0", name=op.f("ck_operations_generation")),
        sa.CheckConstraint("progress BETWEEN 0 AND 1", name=op.f("ck_operations_progress")),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_operations_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_operations_user_id_users"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index("ix_operations_created_at_id", "operations", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_operations_project_id_created_at",
        "operations",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_operations_state_created_at", "operations", ["state", "created_at", "id"], unique=False
    )
    op.create_index(
        "ix_operations_target_id_state", "operations", ["target_id", "state"], unique=False
    )
    op.create_index(op.f("ix_operations_user_id"), "operations", ["user_id"], unique=False)
    op.create_table(
        "quotas",
        sa.Column("project_id", ID, nullable=False),
        sa.Column("limit_workloads", sa.BigInteger(), nullable=True),
        sa.Column("limit_vcpus", sa.BigInteger(), nullable=True),
        sa.Column("limit_memory", sa.BigInteger(), nullable=True),
        sa.Column("limit_disk", sa.BigInteger(), nullable=True),
        sa.Column("limit_volumes", sa.BigInteger(), nullable=True),
        sa.Column("limit_addresses", sa.BigInteger(), nullable=True),
        sa.Column("used_workloads", sa.BigInteger(), nullable=False),
        sa.Column("used_vcpus", sa.BigInteger(), nullable=False),
        sa.Column("used_memory", sa.BigInteger(), nullable=False),
        sa.Column("used_disk", sa.BigInteger(), nullable=False),
        sa.Column("used_volumes", sa.BigInteger(), nullable=False),
        sa.Column("used_addresses", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("limit_addresses >= 0", name=op.f("ck_quotas_limit_addresses")),
        sa.CheckConstraint("limit_disk >= 0", name=op.f("ck_quotas_limit_disk")),
        sa.CheckConstraint("limit_memory >= 0", name=op.f("ck_quotas_limit_memory")),
        sa.CheckConstraint("limit_vcpus >= 0", name=op.f("ck_quotas_limit_vcpus")),
        sa.CheckConstraint("limit_volumes >= 0", name=op.f("ck_quotas_limit_volumes")),
        sa.CheckConstraint("limit_workloads >= 0", name=op.f("ck_quotas_limit_workloads")),
        sa.CheckConstraint("used_addresses >= 0", name=op.f("ck_quotas_used_addresses")),
        sa.CheckConstraint("used_disk >= 0", name=op.f("ck_quotas_used_disk")),
        sa.CheckConstraint("used_memory >= 0", name=op.f("ck_quotas_used_memory")),
        sa.CheckConstraint("used_vcpus >= 0", name=op.f("ck_quotas_used_vcpus")),
        sa.CheckConstraint("used_volumes >= 0", name=op.f("ck_quotas_used_volumes")),
        sa.CheckConstraint("used_workloads >= 0", name=op.f("ck_quotas_used_workloads")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_quotas_version")),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_quotas_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_quotas")),
    )
    op.create_table(
        "role_bindings",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("project_id", ID, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "role IN ('admin', 'operator', 'member', 'viewer')", name=op.f("ck_role_bindings_role")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_role_bindings_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_role_bindings_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_role_bindings")),
        sa.UniqueConstraint(
            "user_id", "role", "project_id", name=op.f("uq_role_bindings_user_id_role_project_id")
        ),
    )
    op.create_index(
        op.f("ix_role_bindings_project_id"), "role_bindings", ["project_id"], unique=False
    )
    op.create_index(
        "uq_role_bindings_everywhere",
        "role_bindings",
        ["user_id", "role"],
        unique=True,
        sqlite_where=sa.text("project_id IS NULL"),
        postgresql_where=sa.text("project_id IS NULL"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("name", text(128), nullable=False),
        sa.Column("secret_hash", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=True),
        sa.Column("project_id", ID, nullable=True),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "role IN ('admin', 'operator', 'member', 'viewer')", name=op.f("ck_tokens_role")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_tokens_project_id_projects"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_tokens_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_tokens_secret_hash")),
    )
    op.create_index(op.f("ix_tokens_project_id"), "tokens", ["project_id"], unique=False)
    op.create_index(op.f("ix_tokens_user_id"), "tokens", ["user_id"], unique=False)
    op.create_table(
        "host_images",
        sa.Column("host_id", ID, nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["host_id"],
            ["hosts.id"],
            name=op.f("fk_host_images_host_id_hosts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("host_id", "image_id", name=op.f("pk_host_images")),
    )
    op.create_index(op.f("ix_host_images_image_id"), "host_images", ["image_id"], unique=False)
    op.create_table(
        "pools",
        sa.Column("id", ID, nullable=False),
        sa.Column("host_id", ID, nullable=False),
        sa.Column("name", text(63), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("capacity", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("capacity >= 0", name=op.f("ck_pools_capacity")),
        sa.CheckConstraint("used >= 0", name=op.f("ck_pools_used")),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_pools_host_id_hosts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pools")),
        sa.UniqueConstraint("host_id", "name", name=op.f("uq_pools_host_id_name")),
    )
    op.create_table(
        "workloads",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("name", text(63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("init", sa.String(length=16), nullable=True),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("status", JSON, nullable=False),
        sa.Column("observed_generation", sa.BigInteger(), nullable=False),
        sa.Column("host_id", ID, nullable=True),
        sa.Column("cluster_id", ID, nullable=False),
        sa.Column("image_id", ID, nullable=True),
        sa.Column("cdrom_image_id", ID, nullable=True),
        sa.Column("claim_vcpus", sa.BigInteger(), nullable=False),
        sa.Column("claim_memory", sa.BigInteger(), nullable=False),
        sa.Column("claim_disk", sa.BigInteger(), nullable=False),
        sa.Column("placement", JSON, nullable=True),
        sa.Column("restart_nonce", sa.BigInteger(), nullable=False),
        sa.Column("force_stop", sa.Boolean(), nullable=False),
        sa.Column("deleting", sa.Boolean(), nullable=False),
        sa.Column("clone_of", ID, nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column(
            "state",
            sa.String(length=16),
            sa.Computed("status ->> 'state'", persisted=True),
            nullable=True,
        ),
        sa.Column("labels", JSON, sa.Computed("spec -> 'labels'", persisted=True), nullable=True),
        sa.CheckConstraint("init IN ('system', 'app')", name=op.f("ck_workloads_init")),
        sa.CheckConstraint(
            "kind = 'container' OR init IS NULL", name=op.f("ck_workloads_init_is_for_containers")
        ),
        sa.CheckConstraint("kind IN ('vm', 'container')", name=op.f("ck_workloads_kind")),
        sa.CheckConstraint(
            "state IN ('pending', 'preparing', 'starting', 'running', 'paused', 'stopping', "
            "'stopped', 'failed', 'unknown', 'deleting')",
            name=op.f("ck_workloads_state"),
        ),
        sa.CheckConstraint("claim_disk >= 0", name=op.f("ck_workloads_claim_disk")),
        sa.CheckConstraint("claim_memory >= 0", name=op.f("ck_workloads_claim_memory")),
        sa.CheckConstraint("claim_vcpus >= 0", name=op.f("ck_workloads_claim_vcpus")),
        sa.CheckConstraint("generation >= 1", name=op.f("ck_workloads_generation")),
        sa.CheckConstraint(
            "observed_generation <= generation", name=op.f("ck_workloads_observed_generation_known")
        ),
        sa.CheckConstraint(
            "observed_generation >= 0", name=op.f("ck_workloads_observed_generation")
        ),
        sa.CheckConstraint("restart_nonce >= 0", name=op.f("ck_workloads_restart_nonce")),
        sa.CheckConstraint("revision >= 0", name=op.f("ck_workloads_revision")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_workloads_version")),
        sa.ForeignKeyConstraint(
            ["cdrom_image_id"],
            ["images.id"],
            name=op.f("fk_workloads_cdrom_image_id_images"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["clone_of"],
            ["workloads.id"],
            name=op.f("fk_workloads_clone_of_workloads"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["cluster_id"],
            ["clusters.id"],
            name=op.f("fk_workloads_cluster_id_clusters"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_workloads_host_id_hosts"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["images.id"],
            name=op.f("fk_workloads_image_id_images"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_workloads_project_id_projects"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workloads")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_workloads_project_id_name")),
    )
    op.create_index(
        op.f("ix_workloads_cdrom_image_id"), "workloads", ["cdrom_image_id"], unique=False
    )
    op.create_index(op.f("ix_workloads_clone_of"), "workloads", ["clone_of"], unique=False)
    op.create_index(op.f("ix_workloads_cluster_id"), "workloads", ["cluster_id"], unique=False)
    op.create_index("ix_workloads_created_at_id", "workloads", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_workloads_host_id_revision", "workloads", ["host_id", "revision"], unique=False
    )
    op.create_index(op.f("ix_workloads_image_id"), "workloads", ["image_id"], unique=False)
    op.create_index("ix_workloads_kind_id", "workloads", ["kind", "id"], unique=False)
    op.create_index(op.f("ix_workloads_name"), "workloads", ["name"], unique=False)
    op.create_index("ix_workloads_state_id", "workloads", ["state", "id"], unique=False)
    op.create_index(op.f("ix_workloads_updated_at"), "workloads", ["updated_at"], unique=False)
    op.create_table(
        "nics",
        sa.Column("id", ID, nullable=False),
        sa.Column("workload_id", ID, nullable=False),
        sa.Column("network_id", ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("mac", sa.String(length=17), nullable=False),
        sa.CheckConstraint("position >= 0", name=op.f("ck_nics_position")),
        sa.ForeignKeyConstraint(
            ["network_id"],
            ["networks.id"],
            name=op.f("fk_nics_network_id_networks"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["workload_id"],
            ["workloads.id"],
            name=op.f("fk_nics_workload_id_workloads"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nics")),
        sa.UniqueConstraint("mac", name=op.f("uq_nics_mac")),
        sa.UniqueConstraint("workload_id", "position", name=op.f("uq_nics_workload_id_position")),
    )
    op.create_index(op.f("ix_nics_network_id"), "nics", ["network_id"], unique=False)
    op.create_table(
        "stream_tickets",
        sa.Column("id", ID, nullable=False),
        sa.Column("secret_hash", sa.String(length=128), nullable=False),
        sa.Column("workload_id", ID, nullable=False),
        sa.Column("host_id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=True),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("parameters", JSON, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["host_id"],
            ["hosts.id"],
            name=op.f("fk_stream_tickets_host_id_hosts"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_stream_tickets_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workload_id"],
            ["workloads.id"],
            name=op.f("fk_stream_tickets_workload_id_workloads"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stream_tickets")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_stream_tickets_secret_hash")),
    )
    op.create_index(
        op.f("ix_stream_tickets_expires_at"), "stream_tickets", ["expires_at"], unique=False
    )
    op.create_index(op.f("ix_stream_tickets_host_id"), "stream_tickets", ["host_id"], unique=False)
    op.create_index(op.f("ix_stream_tickets_user_id"), "stream_tickets", ["user_id"], unique=False)
    op.create_index(
        op.f("ix_stream_tickets_workload_id"), "stream_tickets", ["workload_id"], unique=False
    )
    op.create_table(
        "volumes",
        sa.Column("id", ID, nullable=False),
        sa.Column("project_id", ID, nullable=False),
        sa.Column("name", text(63), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("host_id", ID, nullable=True),
        sa.Column("pool_id", ID, nullable=True),
        sa.Column("workload_id", ID, nullable=True),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("copy_of", ID, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'ready', 'failed', 'deleting')", name=op.f("ck_volumes_state")
        ),
        sa.CheckConstraint("revision >= 0", name=op.f("ck_volumes_revision")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_volumes_size")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_volumes_version")),
        sa.ForeignKeyConstraint(
            ["copy_of"],
            ["volumes.id"],
            name=op.f("fk_volumes_copy_of_volumes"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["host_id"], ["hosts.id"], name=op.f("fk_volumes_host_id_hosts"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["pool_id"], ["pools.id"], name=op.f("fk_volumes_pool_id_pools"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_volumes_project_id_projects"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["workload_id"],
            ["workloads.id"],
            name=op.f("fk_volumes_workload_id_workloads"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volumes")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_volumes_project_id_name")),
    )
    op.create_index(op.f("ix_volumes_host_id"), "volumes", ["host_id"], unique=False)
    op.create_index(op.f("ix_volumes_name"), "volumes", ["name"], unique=False)
    op.create_index(op.f("ix_volumes_pool_id"), "volumes", ["pool_id"], unique=False)
    op.create_index(op.f("ix_volumes_state"), "volumes", ["state"], unique=False)
    op.create_index(op.f("ix_volumes_workload_id"), "volumes", ["workload_id"], unique=False)
    op.create_table(
        "addresses",
        sa.Column("id", ID, nullable=False),
        sa.Column("network_id", ID, nullable=False),
        sa.Column("address", text(45), nullable=False),
        sa.Column("nic_id", ID, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["network_id"],
            ["networks.id"],
            name=op.f("fk_addresses_network_id_networks"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["nic_id"], ["nics.id"], name=op.f("fk_addresses_nic_id_nics"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_addresses")),
        sa.UniqueConstraint("network_id", "address", name=op.f("uq_addresses_network_id_address")),
    )
    op.create_index(op.f("ix_addresses_nic_id"), "addresses", ["nic_id"], unique=False)
    if op.get_bind().dialect.name == "postgresql":
        for table in LABELLED:
            op.create_index(f"ix_{table}_labels", table, ["labels"], postgresql_using="gin")


def downgrade() -> None:
    for table in (
        "addresses",
        "volumes",
        "stream_tickets",
        "nics",
        "workloads",
        "pools",
        "host_images",
        "tokens",
        "role_bindings",
        "quotas",
        "operations",
        "networks",
        "image_names",
        "image_blobs",
        "idempotency_keys",
        "hosts",
        "users",
        "settings",
        "projects",
        "images",
        "events",
        "clusters",
    ):
        op.drop_table(table)
