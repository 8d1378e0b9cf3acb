"""The inventory's tables: columns, constraints and indexes, one block per noun.

Change something here, then ``make migration NAME=what_changed``. The database holds what it can:
names unique in their project, addresses in their network, every reference a foreign key. Rows that
something still needs refuse to go (RESTRICT); rows that mean nothing without their owner go with
it (CASCADE). Events name their targets without foreign keys: the log outlives what it tells of.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy import text as text_

from virtmgr.domain.failover import FailoverPhase, Release
from virtmgr.domain.fencing import FenceAgent
from virtmgr.domain.host import (
    Convergence,
    FailoverPolicy,
    HostState,
    Rebalancing,
    SchedulingPolicy,
)
from virtmgr.domain.host_states import SCHEDULING
from virtmgr.domain.image import ImageManifest, ImageState, ImageType
from virtmgr.domain.migration import MigrationMode, Phase
from virtmgr.domain.network import NetworkType
from virtmgr.domain.operation import OperationState
from virtmgr.domain.project import Role
from virtmgr.domain.volume import VolumeState
from virtmgr.domain.workload import Init, Kind, State, WorkloadSpec, WorkloadStatus
from virtmgr.store.types import (
    Count,
    Document,
    Enumerated,
    Flag,
    Model,
    Sequence,
    Thousandths,
    UtcDateTime,
    document,
    identifier,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ONLY_ON = "only_on"
"""Key of ``Index.info``: the one dialect that has the index."""

EXTENSION = "extension"
"""Key of ``Index.info``: what PostgreSQL must have been extended by; else the index is left out."""


def _id() -> Column[str]:
    return Column("id", identifier(), primary_key=True)


def _reference(
    name: str, target: str, ondelete: str, *, nullable: bool = False, index: bool = True
) -> Column[str]:
    return Column(
        name,
        identifier(),
        ForeignKey(f"{target}.id", ondelete=ondelete),
        nullable=nullable,
        index=index,
    )


def _labels(table: str) -> tuple[Column[object], Index]:
    column: Column[object] = Column("labels", document(), nullable=False)
    return column, _labels_index(table, column)


def _labels_index(table: str, column: Column[object]) -> Index:
    """PostgreSQL finds labels by a GIN index; SQLite has no such thing and scans."""
    return Index(f"ix_{table}_labels", column, postgresql_using="gin", info={ONLY_ON: "postgresql"})


def trigrams_of_names(table: str, operators: str = "gin_trgm_ops") -> Index:
    """What finds text in the names of a table's rows (``store/trigrams.py``).

    A row that changes is indexed anew. That is done for some hundred rows together: one by one it
    would double what a change costs, and what waits for it is read by each search.

    :param operators: the class of them, with its schema where that is not searched.
    """
    return Index(
        f"ix_{table}_name_trigrams",
        "name",
        postgresql_using="gin",
        postgresql_ops={"name": operators},
        postgresql_with={"gin_pending_list_limit": 256},  # KiB
        info={ONLY_ON: "postgresql", EXTENSION: "pg_trgm"},
    )


def _created_at() -> Column[object]:
    return Column("created_at", UtcDateTime(), nullable=False)


def _version() -> tuple[Column[int], CheckConstraint]:
    return (
        Column("version", Integer, nullable=False),
        CheckConstraint("version >= 1", name="version"),
    )


def one_of(column: str, values: Iterable[StrEnum]) -> CheckConstraint:
    """The column holds one of the enumeration's values."""
    legal = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({legal})", name=column)


def _at_least_0(*columns: str) -> list[CheckConstraint]:
    return [CheckConstraint(f"{column} >= 0", name=column) for column in columns]


projects = Table(
    "projects",
    metadata,
    _id(),
    Column("name", text(63), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    *_labels("projects"),
    _created_at(),
    *_version(),
)

QUOTA_RESOURCES = ("workloads", "vcpus", "memory", "disk", "volumes", "addresses")


def _quota_amount(resource: str) -> Thousandths | Count:
    return Thousandths() if resource == "vcpus" else Count()


quotas = Table(
    "quotas",
    metadata,
    Column(
        "project_id",
        identifier(),
        ForeignKey("projects.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    *(Column(f"limit_{resource}", _quota_amount(resource)) for resource in QUOTA_RESOURCES),
    *(
        Column(f"used_{resource}", _quota_amount(resource), nullable=False)
        for resource in QUOTA_RESOURCES
    ),
    *_version(),
    *_at_least_0(*(f"limit_{resource}" for resource in QUOTA_RESOURCES)),
    *_at_least_0(*(f"used_{resource}" for resource in QUOTA_RESOURCES)),
)

users = Table(
    "users",
    metadata,
    _id(),
    Column("name", text(128), nullable=False, unique=True),
    Column("display_name", Text, nullable=False),
    Column("password_hash", Text),
    Column("disabled", Flag, nullable=False),
    Column("failed_logins", Integer, nullable=False),
    Column("locked_until", UtcDateTime()),
    _created_at(),
    *_version(),
    *_at_least_0("failed_logins"),
)

role_bindings = Table(
    "role_bindings",
    metadata,
    _id(),
    _reference("user_id", "users", "CASCADE", index=False),
    Column("role", Enumerated(Role), nullable=False),
    _reference("project_id", "projects", "CASCADE", nullable=True),
    _created_at(),
    one_of("role", Role),
    UniqueConstraint("user_id", "role", "project_id"),
)
Index(
    "uq_role_bindings_everywhere",
    role_bindings.c.user_id,
    role_bindings.c.role,
    unique=True,
    sqlite_where=role_bindings.c.project_id.is_(None),
    postgresql_where=role_bindings.c.project_id.is_(None),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    _reference("user_id", "users", "CASCADE"),
    Column("name", text(128), nullable=False),
    Column("secret_hash", String(128), nullable=False, unique=True),
    Column("role", Enumerated(Role)),
    _reference("project_id", "projects", "CASCADE", nullable=True),
    Column("expires_at", UtcDateTime()),
    Column("idle_seconds", Integer),
    Column("last_used_at", UtcDateTime()),
    Column("address", String(64)),
    Column("user_agent", String(256)),
    _created_at(),
    one_of("role", Role),
)

clusters = Table(
    "clusters",
    metadata,
    _id(),
    Column("name", text(63), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("policy", Enumerated(SchedulingPolicy), nullable=False),
    Column("overcommit_vcpus", Float, nullable=False),
    Column("overcommit_memory", Float, nullable=False),
    Column("overcommit_disk", Float, nullable=False),
    Column("failover", Enumerated(FailoverPolicy), nullable=False, server_default="automatic"),
    Column("failover_limit", Float, nullable=False, server_default="0.34"),
    Column("reserve", Integer, nullable=False, server_default="0"),
    Column("ha_lease", Float, nullable=False, server_default="9"),
    Column("ha_margin", Float, nullable=False, server_default="2"),
    Column("cpu", String(64), nullable=False, server_default="host"),
    Column("migration_bandwidth", Integer, nullable=False, server_default="0"),
    Column("migration_downtime", Integer, nullable=False, server_default="300"),
    Column("migration_steps", Integer, nullable=False, server_default="4"),
    Column(
        "migration_convergence", Enumerated(Convergence), nullable=False, server_default="pause"
    ),
    Column("rebalancing", Enumerated(Rebalancing), nullable=False, server_default="manual"),
    Column("rebalancing_threshold", Float, nullable=False, server_default="0.2"),
    Column("imbalance_rounds", Integer, nullable=False, server_default="0"),
    Column("proposed_moves", Integer, nullable=False, server_default="0"),
    *_labels("clusters"),
    _created_at(),
    *_version(),
    one_of("policy", SchedulingPolicy),
    CheckConstraint("overcommit_vcpus > 0", name="overcommit_vcpus"),
    CheckConstraint("overcommit_memory > 0", name="overcommit_memory"),
    CheckConstraint("overcommit_disk > 0", name="overcommit_disk"),
    one_of("failover", FailoverPolicy),
    CheckConstraint("failover_limit BETWEEN 0 AND 1", name="failover_limit"),
    CheckConstraint("ha_lease > 0", name="ha_lease"),
    CheckConstraint("ha_margin > 0", name="ha_margin"),
    *_at_least_0("reserve"),
    one_of("migration_convergence", Convergence),
    *_at_least_0("migration_bandwidth", "migration_downtime", "migration_steps"),
    one_of("rebalancing", Rebalancing),
    CheckConstraint("rebalancing_threshold > 0", name="rebalancing_threshold"),
    *_at_least_0("imbalance_rounds", "proposed_moves"),
)

hosts = Table(
    "hosts",
    metadata,
    _id(),
    Column("name", text(253), nullable=False, unique=True),
    _reference("cluster_id", "clusters", "RESTRICT"),
    Column("state", Enumerated(HostState), nullable=False, index=True),
    Column("scheduling_state", Enumerated(HostState), nullable=False, server_default="ready"),
    *_labels("hosts"),
    Column("architecture", String(32), nullable=False),
    Column("capacity_vcpus", Thousandths(), nullable=False),
    Column("capacity_memory", Count, nullable=False),
    Column("capacity_disk", Count, nullable=False),
    Column("claimed_vcpus", Thousandths(), nullable=False),
    Column("claimed_memory", Count, nullable=False),
    Column("claimed_disk", Count, nullable=False),
    Column("facts", document(), nullable=False),
    Column("tunnel_address", text(45)),
    Column("machine_id", String(64), index=True),
    Column("certificate_serial", String(64), unique=True),
    Column("previous_certificate_serial", String(64)),
    Column("certificate_expires_at", UtcDateTime()),
    Column("certificate_issuer", String(64)),
    Column("trusted_authorities", Document()),
    Column("join_token_hash", String(128), unique=True),
    Column("join_token_expires_at", UtcDateTime()),
    Column("lease_expires_at", UtcDateTime()),
    Column("lease_seconds", Float, nullable=False, server_default="30"),
    Column("renewals", Count, nullable=False, server_default="0"),
    Column("last_seen_at", UtcDateTime()),
    Column("sync_run", String(36), nullable=False, server_default=""),
    Column("sync_run_before", String(36), nullable=False, server_default=""),
    Column("sync_number", Count, nullable=False, server_default="0"),
    Column("file_systems", Document()),
    Column("fullness", Float, nullable=False, server_default="0"),
    Column("known_off", String(16)),
    Column("without_volumes", Flag, nullable=False, server_default=false()),
    Column("revision", Count, nullable=False),
    Column("prune_nonce", Count, nullable=False),
    *_version(),
    _created_at(),
    one_of("state", HostState),
    one_of("scheduling_state", SCHEDULING),
    *_at_least_0("capacity_vcpus", "capacity_memory", "capacity_disk"),
    *_at_least_0("claimed_vcpus", "claimed_memory", "claimed_disk"),
    *_at_least_0("revision", "prune_nonce"),
)

host_access = Table(
    "host_access",
    metadata,
    Column("host_id", identifier(), ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
    Column("address", text(253), nullable=False, index=True),
    Column("port", Integer, nullable=False),
    Column("user", String(32), nullable=False),
    Column("host_key", String(128), nullable=False),
    Column("vms", Flag, nullable=False),
    Column("sealed", Text),
    Column("kept", Flag, nullable=False),
    CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
)

fence_devices = Table(
    "fence_devices",
    metadata,
    _id(),
    _reference("host_id", "hosts", "CASCADE", index=False),
    Column("name", text(63), nullable=False),
    Column("agent", Enumerated(FenceAgent), nullable=False),
    Column("address", text(253), nullable=False),
    Column("port", Integer, nullable=False),
    Column("user", String(64), nullable=False),
    Column("sealed", Text, nullable=False),
    Column("level", Integer, nullable=False),
    Column("system", String(256)),
    Column("verify", Flag, nullable=False),
    Column("via", String(36)),
    _created_at(),
    UniqueConstraint("host_id", "name"),
    one_of("agent", FenceAgent),
    CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
    CheckConstraint("level >= 1", name="level"),
)

pools = Table(
    "pools",
    metadata,
    _id(),
    _reference("host_id", "hosts", "CASCADE", index=False),
    Column("name", text(63), nullable=False),
    Column("type", String(32), nullable=False),
    Column("path", Text, nullable=False),
    Column("capacity", Count, nullable=False),
    Column("used", Count, nullable=False),
    Column("shared", Flag, nullable=False),
    _created_at(),
    UniqueConstraint("host_id", "name"),
    *_at_least_0("capacity", "used"),
)

images = Table(
    "images",
    metadata,
    _id(),
    Column("name", text(128), nullable=False, unique=True),
    Column("type", Enumerated(ImageType)),
    Column("state", Enumerated(ImageState), nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("manifest", Model(ImageManifest)),
    Column("digest", String(128), index=True),
    Column("size", Count, nullable=False),
    Column("aliases", Document(), nullable=False),
    *_labels("images"),
    Column("failure", Text),
    Column("description", Text, nullable=False, server_default=""),
    Column("protected", Flag, nullable=False, server_default=false()),
    _created_at(),
    *_version(),
    one_of("type", ImageType),
    one_of("state", ImageState),
    CheckConstraint("state <> 'ready' OR manifest IS NOT NULL", name="ready_has_manifest"),
    *_at_least_0("size"),
)

# Names and aliases of all images in one table, so that each is unique among all.
image_names = Table(
    "image_names",
    metadata,
    Column("name", text(128), primary_key=True),
    _reference("image_id", "images", "CASCADE"),
)

# Which image needs which blob, out of the manifests.
image_blobs = Table(
    "image_blobs",
    metadata,
    Column(
        "image_id",
        identifier(),
        ForeignKey("images.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("digest", String(128), primary_key=True, index=True),
)

# Which images a host says that it has at hand: also those that are not in the inventory any more,
# until it has removed them. A table, so that placing reads the rows of the images asked for only.
host_images = Table(
    "host_images",
    metadata,
    Column(
        "host_id",
        identifier(),
        ForeignKey("hosts.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("image_id", identifier(), primary_key=True, index=True),
)

networks = Table(
    "networks",
    metadata,
    _id(),
    _reference("project_id", "projects", "RESTRICT", nullable=True, index=False),
    Column("name", text(63), nullable=False, index=True),
    Column("type", Enumerated(NetworkType), nullable=False),
    Column("ipv4", String(43)),
    Column("ipv6", String(43)),
    Column("bridge", String(15)),
    Column("dns_domain", String(253), nullable=False),
    Column("mtu", Integer, nullable=False),
    Column("vni", Integer),
    Column("interface", String(15)),
    Column("vlan", Integer),
    *_labels("networks"),
    Column("revision", Count, nullable=False),
    _created_at(),
    *_version(),
    UniqueConstraint("project_id", "name"),
    one_of("type", NetworkType),
    CheckConstraint("mtu BETWEEN 68 AND 65535", name="mtu"),
    CheckConstraint("vlan BETWEEN 1 AND 4094", name="vlan"),
    *_at_least_0("revision"),
)
Index("uq_networks_vni", networks.c.vni, unique=True)
Index("uq_networks_interface_vlan", networks.c.interface, networks.c.vlan, unique=True)
Index(
    "uq_networks_shared_name",
    networks.c.name,
    unique=True,
    sqlite_where=networks.c.project_id.is_(None),
    postgresql_where=networks.c.project_id.is_(None),
)

_workload_labels: Column[object] = Column(
    "labels", Document(), Computed("spec -> 'labels'", persisted=True)
)

# What is placed and has affinity rules; a query that says it so is answered by an index.
WITH_AFFINITY: Final = "host_id IS NOT NULL AND spec -> 'placement' -> 'affinity' <> '[]'"

workloads = Table(
    "workloads",
    metadata,
    _id(),
    _reference("project_id", "projects", "RESTRICT", index=False),
    Column("name", text(63), nullable=False, index=True),
    Column("kind", Enumerated(Kind), nullable=False),
    Column("init", Enumerated(Init)),
    Column("spec", Model(WorkloadSpec), nullable=False),
    Column("generation", Count, nullable=False),
    Column("status", Model(WorkloadStatus), nullable=False),
    Column("observed_generation", Count, nullable=False),
    _reference("host_id", "hosts", "RESTRICT", nullable=True, index=False),
    _reference("cluster_id", "clusters", "RESTRICT"),
    _reference("image_id", "images", "RESTRICT", nullable=True, index=False),
    _reference("cdrom_image_id", "images", "RESTRICT", nullable=True),
    Column("claim_vcpus", Thousandths(), nullable=False),
    Column("claim_memory", Count, nullable=False),
    Column("claim_disk", Count, nullable=False),
    Column("placement", Document()),
    Column("restart_nonce", Count, nullable=False),
    Column("force_stop", Flag, nullable=False),
    Column("deleting", Flag, nullable=False),
    _reference("clone_of", "workloads", "SET NULL", nullable=True),
    Column("ha_since", Count),
    Column("revision", Count, nullable=False),
    *_version(),
    _created_at(),
    Column("updated_at", UtcDateTime(), nullable=False),
    # The database keeps these two in step with spec and status by itself.
    Column("state", Enumerated(State), Computed("status ->> 'state'", persisted=True)),
    _workload_labels,
    _labels_index("workloads", _workload_labels),
    trigrams_of_names("workloads"),
    UniqueConstraint("project_id", "name"),
    Index("ix_workloads_state_id", "state", "id"),
    Index("ix_workloads_kind_id", "kind", "id"),
    # Counting them by kind and state reads this alone.
    Index("ix_workloads_counted", "kind", "init", "state", "project_id"),
    Index("ix_workloads_created_at_id", "created_at", "id"),
    Index("ix_workloads_updated_at_id", "updated_at", "id"),
    Index("ix_workloads_host_id_id", "host_id", "id"),
    Index("ix_workloads_project_id_id", "project_id", "id"),
    Index("ix_workloads_image_id_id", "image_id", "id"),
    Index("ix_workloads_claim_vcpus_id", "claim_vcpus", "id"),
    Index("ix_workloads_claim_memory_id", "claim_memory", "id"),
    Index("ix_workloads_host_id_revision", "host_id", "revision"),
    Index(
        "ix_workloads_highly_available",
        "host_id",
        sqlite_where=text_("ha_since IS NOT NULL"),
        postgresql_where=text_("ha_since IS NOT NULL"),
    ),
    # Placing asks for them every time, and they are few.
    Index(
        "ix_workloads_with_affinity",
        "project_id",
        sqlite_where=text_(WITH_AFFINITY),
        postgresql_where=text_(WITH_AFFINITY),
    ),
    one_of("kind", Kind),
    one_of("init", Init),
    one_of("state", State),
    CheckConstraint("kind = 'container' OR init IS NULL", name="init_is_for_containers"),
    CheckConstraint("generation >= 1", name="generation"),
    CheckConstraint("observed_generation <= generation", name="observed_generation_known"),
    *_at_least_0("observed_generation", "claim_vcpus", "claim_memory", "claim_disk"),
    *_at_least_0("restart_nonce", "revision"),
)

volumes = Table(
    "volumes",
    metadata,
    _id(),
    _reference("project_id", "projects", "RESTRICT", index=False),
    Column("name", text(63), nullable=False, index=True),
    Column("size", Count, nullable=False),
    Column("state", Enumerated(VolumeState), nullable=False, index=True),
    Column("failure", Text),
    _reference("host_id", "hosts", "RESTRICT", nullable=True),
    _reference("pool_id", "pools", "RESTRICT", nullable=True),
    _reference("workload_id", "workloads", "SET NULL", nullable=True),
    *_labels("volumes"),
    trigrams_of_names("volumes"),
    Column("revision", Count, nullable=False),
    _reference("copy_of", "volumes", "SET NULL", nullable=True, index=False),
    _created_at(),
    *_version(),
    UniqueConstraint("project_id", "name"),
    one_of("state", VolumeState),
    *_at_least_0("size", "revision"),
)

migrations = Table(
    "migrations",
    metadata,
    _id(),
    _reference("workload_id", "workloads", "CASCADE"),
    _reference("project_id", "projects", "CASCADE"),
    _reference("source_host_id", "hosts", "SET NULL", nullable=True),
    _reference("target_host_id", "hosts", "SET NULL", nullable=True),
    Column("mode", Enumerated(MigrationMode), nullable=False),
    Column("phase", Enumerated(Phase), nullable=False),
    _reference("operation_id", "operations", "CASCADE", index=False),
    _reference("drain_id", "operations", "SET NULL", nullable=True),
    _reference("rebalance_id", "operations", "SET NULL", nullable=True),
    Column("generation", Count, nullable=False),
    Column("revision", Count, nullable=False),
    Column("target_revision", Count, nullable=False, server_default="0"),
    Column("ticket", String(64)),
    Column("claim_vcpus", Thousandths(), nullable=False),
    Column("claim_memory", Count, nullable=False),
    Column("claim_disk", Count, nullable=False),
    Column("placement", document()),
    Column("leftovers", Document(), nullable=False),
    Column("cancelling", Flag, nullable=False),
    Column("copied", Count, nullable=False),
    Column("error", document()),
    Column("owner", String(128)),
    Column("lease_expires_at", UtcDateTime()),
    _created_at(),
    Column("updated_at", UtcDateTime(), nullable=False),
    Column("finished_at", UtcDateTime()),
    Index("ix_migrations_phase_created_at", "phase", "created_at", "id"),
    Index("ix_migrations_created_at_id", "created_at", "id"),
    one_of("mode", MigrationMode),
    one_of("phase", Phase),
    CheckConstraint("(finished_at IS NULL) = (phase NOT IN ('done', 'failed'))", name="finished"),
    *_at_least_0("generation", "revision", "claim_vcpus", "claim_memory", "claim_disk", "copied"),
    *_at_least_0("target_revision"),
)
Index(
    "uq_migrations_one_at_a_time",
    migrations.c.workload_id,
    unique=True,
    sqlite_where=migrations.c.finished_at.is_(None),
    postgresql_where=migrations.c.finished_at.is_(None),
)

# No foreign key to the workload: what is left on a lost host is to be removed, even if the workload
# has been deleted meanwhile.
failovers = Table(
    "failovers",
    metadata,
    _id(),
    Column("workload_id", identifier(), nullable=False),
    Column("workload_name", text(63), nullable=False),
    _reference("project_id", "projects", "CASCADE"),
    _reference("lost_host_id", "hosts", "SET NULL", nullable=True),
    _reference("target_host_id", "hosts", "SET NULL", nullable=True),
    Column("phase", Enumerated(FailoverPhase), nullable=False),
    Column("release", Enumerated(Release)),
    Column("code", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("claim_vcpus", Thousandths(), nullable=False),
    Column("claim_memory", Count, nullable=False),
    Column("claim_disk", Count, nullable=False),
    _created_at(),
    Column("updated_at", UtcDateTime(), nullable=False),
    Column("finished_at", UtcDateTime()),
    Index("ix_failovers_created_at_id", "created_at", "id"),
    one_of("phase", FailoverPhase),
    one_of("release", Release),
    CheckConstraint("(finished_at IS NULL) = (phase IN ('waiting', 'restarted'))", name="finished"),
    *_at_least_0("claim_vcpus", "claim_memory", "claim_disk"),
)
Index(
    "uq_failovers_one_at_a_time",
    failovers.c.workload_id,
    failovers.c.lost_host_id,
    unique=True,
    sqlite_where=failovers.c.finished_at.is_(None),
    postgresql_where=failovers.c.finished_at.is_(None),
)

nics = Table(
    "nics",
    metadata,
    _id(),
    _reference("workload_id", "workloads", "CASCADE", index=False),
    _reference("network_id", "networks", "RESTRICT"),
    Column("position", Integer, nullable=False),
    Column("mac", String(17), nullable=False, unique=True),
    UniqueConstraint("workload_id", "position"),
    *_at_least_0("position"),
)

addresses = Table(
    "addresses",
    metadata,
    _id(),
    _reference("network_id", "networks", "CASCADE", index=False),
    Column("address", text(45), nullable=False),
    _reference("nic_id", "nics", "CASCADE", nullable=True),
    _created_at(),
    UniqueConstraint("network_id", "address"),
)

operations = Table(
    "operations",
    metadata,
    _id(),
    Column("verb", String(64), nullable=False),
    Column("target_type", String(64), nullable=False),
    Column("target_id", String(64), nullable=False),
    Column("target_name", Text, nullable=False),
    _reference("project_id", "projects", "CASCADE", nullable=True, index=False),
    _reference("user_id", "users", "SET NULL", nullable=True),
    Column("state", Enumerated(OperationState), nullable=False),
    Column("generation", Count, nullable=False),
    Column("progress", Float, nullable=False),
    Column("message", Text, nullable=False),
    Column("parameters", document(), nullable=False),
    Column("error", document()),
    Column("owner", String(128)),
    Column("lease_expires_at", UtcDateTime()),
    _created_at(),
    Column("updated_at", UtcDateTime(), nullable=False),
    Column("finished_at", UtcDateTime()),
    Index("ix_operations_target_id_state", "target_id", "state"),
    Index("ix_operations_state_created_at", "state", "created_at", "id"),
    Index("ix_operations_project_id_created_at", "project_id", "created_at", "id"),
    Index("ix_operations_created_at_id", "created_at", "id"),
    one_of("state", OperationState),
    CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
    *_at_least_0("generation"),
)

operation_log = Table(
    "operation_log",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    _reference("operation_id", "operations", "CASCADE"),
    Column("at", UtcDateTime(), nullable=False),
    Column("text", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime(), nullable=False),
    Column("type", String(64), nullable=False),
    Column("target_type", String(64), nullable=False),
    Column("target_id", String(64), nullable=False),
    Column("target_name", Text, nullable=False),
    Column("project_id", String(64)),
    Column("user_id", String(64)),
    Column("operation_id", String(64)),
    Column("host_id", String(64)),
    Column("message", Text, nullable=False),
    Column("data", Document(), nullable=False),
    Index("ix_events_project_id_sequence", "project_id", "sequence"),
    Index("ix_events_target_id_sequence", "target_id", "sequence"),
    Index("ix_events_type_sequence", "type", "sequence"),
    sqlite_autoincrement=True,  # a number is never given twice, not even after a purge
)

# Packed: store/usage_points.py. Rows are only ever added, and removed when they are old.
usage_history = Table(
    "usage_history",
    metadata,
    Column("host_id", identifier(), ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
    Column("seconds", Integer, primary_key=True, autoincrement=False),
    Column("ends_at", UtcDateTime(), primary_key=True),
    Column("points", LargeBinary, nullable=False),
    Index("ix_usage_history_seconds_ends_at", "seconds", "ends_at"),
)

stream_tickets = Table(
    "stream_tickets",
    metadata,
    _id(),
    Column("secret_hash", String(128), nullable=False, unique=True),
    _reference("workload_id", "workloads", "CASCADE"),
    _reference("host_id", "hosts", "CASCADE"),
    _reference("user_id", "users", "CASCADE", nullable=True),
    Column("action", String(32), nullable=False),
    Column("parameters", document(), nullable=False),
    Column("expires_at", UtcDateTime(), nullable=False, index=True),
    Column("used_at", UtcDateTime()),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", identifier(), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("request_hash", String(128), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", UtcDateTime(), nullable=False, index=True),
)

settings = Table(
    "settings",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("value", Text, nullable=False),
)

# Who does what must be done once: domain/leadership.py.
leaderships = Table(
    "leaderships",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(128), nullable=False),
    Column("term", Count, nullable=False),
    Column("expires_at", UtcDateTime(), nullable=False),
    *_at_least_0("term"),
)
