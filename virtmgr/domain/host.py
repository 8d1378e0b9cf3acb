"""Hosts, clusters and pools: where workloads run."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from virtmgr.domain.values import Value
from virtmgr.domain.workload import Reason


class SchedulingPolicy(StrEnum):
    SPREAD = "spread"  # least used first
    PACK = "pack"  # most used first, to free whole hosts
    BALANCED = "balanced"  # least used, and CPU and memory used alike


class FailoverPolicy(StrEnum):
    AUTOMATIC = "automatic"  # as soon as a lost host cannot be running it any more
    MANUAL = "manual"  # only once an operator has confirmed that the host is off


class Rebalancing(StrEnum):
    MANUAL = "manual"  # a plan is told, and carried out when somebody asks
    AUTOMATIC = "automatic"  # carried out by itself, live moves only


class Convergence(StrEnum):
    """What becomes of a live migration whose guest writes faster than its memory goes over."""

    PAUSE = "pause"  # the guest stands still until the rest is there
    GIVE_UP = "give_up"  # the guest stays where it is


@dataclass(kw_only=True)
class Cluster:
    """Hosts that schedule and migrate among each other under one policy.

    ``failover_limit`` is the share of its hosts that may be silent before nothing is restarted
    elsewhere by itself. ``ha_lease`` is how long a host may run highly available workloads without
    renewing its lease, ``ha_margin`` how much longer the control plane waits; both in seconds.
    ``rebalancing_threshold`` is how far the claimed share of a host may be from the cluster's.
    ``imbalance_rounds`` counts looks in a row that found it out of balance, ``proposed_moves`` are
    those of the last plan that was made for that (``virtmgr.domain.rebalancing``).
    """

    id: str
    name: str
    description: str = ""
    policy: SchedulingPolicy = SchedulingPolicy.BALANCED
    overcommit_vcpus: float = 4.0
    overcommit_memory: float = 1.0
    overcommit_disk: float = 1.0
    failover: FailoverPolicy = FailoverPolicy.AUTOMATIC
    failover_limit: float = 0.34
    reserve: int = 0  # failures of hosts that there is to be room for
    ha_lease: float = 9.0
    ha_margin: float = 2.0
    cpu: str = "host"  # what its VMs see: host, auto (what all hosts have), or a model's name
    migration_bandwidth: int = 0  # MiB a second for each live migration; 0: no limit
    migration_downtime: int = 300  # milliseconds that a guest may stand still at the end, at first
    migration_steps: int = 4  # how often that is doubled where it does not suffice
    migration_convergence: Convergence = Convergence.PAUSE  # after that
    rebalancing: Rebalancing = Rebalancing.MANUAL
    rebalancing_threshold: float = 0.2
    imbalance_rounds: int = 0
    proposed_moves: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    created_at: datetime
    version: int = 1


class HostState(StrEnum):
    """How a host is; ``virtmgr.domain.host_states`` says what may follow what."""

    ENROLLING = "enrolling"  # has a join token, no agent has synced yet
    INSTALLING = "installing"  # virtmgr makes a host of it, by ssh
    INSTALL_FAILED = "install_failed"  # that failed; its last operation says why
    PROBING = "probing"  # its agent speaks; what it found is not good enough yet to schedule on
    READY = "ready"
    CORDONED = "cordoned"  # keeps what it runs, takes nothing new
    DRAINING = "draining"  # takes nothing new, and what it runs is moved away
    MAINTENANCE = "maintenance"  # takes nothing new, and nothing runs
    UNREACHABLE = "unreachable"  # its lease ran out
    FENCED = "fenced"  # silent, and known to be off: nothing runs on it
    REMOVING = "removing"  # on its way out of the inventory


class DriverFacts(Value):
    """One driver on a host: whether it works, its version, and what it can do."""

    name: str  # oci | libvirt | fake
    healthy: bool
    version: str = ""
    kinds: tuple[str, ...] = ()  # of vm, container
    inits: tuple[str, ...] = ()  # of system, app
    features: tuple[str, ...] = ()  # declared capabilities, see ports.driver.Feature
    cpu_models: tuple[str, ...] = ()  # named ones that VMs can have here
    machine_types: tuple[str, ...] = ()  # versioned ones that VMs can have here (pc-q35-7.2)
    reason: Reason | None = None  # why it is not healthy, or what is reduced


class Tunnel(Value):
    """Where a host's overlay networks reach other hosts, or why they cannot."""

    address: str = ""  # empty: none
    mtu: int = 0  # largest packet of an overlay that passes whole, in bytes
    reason: str = ""  # why there is none


class Fingerprint(Value):
    """What the agent found out about its host at start."""

    hostname: str
    machine_id: str
    boot_id: str
    architecture: str
    os: str = ""
    kernel: str = ""
    cpu_model: str = ""
    vcpus: float = Field(gt=0)  # logical CPUs
    memory: int = Field(gt=0)  # bytes
    disk: int = Field(ge=0)  # bytes, of the file system that holds the default pool
    cgroup: str = "none"  # v1 | v2 | hybrid | none
    kernel_features: dict[str, bool] = Field(default_factory=dict)
    accelerator: str = "none"  # kvm | tcg | none, what VMs run under
    accelerator_reason: str = ""  # why not kvm
    drivers: tuple[DriverFacts, ...] = ()
    bridges: tuple[str, ...] = ()  # the host's own bridges, which BRIDGE networks may join
    tunnel: Tunnel = Tunnel(reason="its agent is of a version that makes no overlays")
    agent_version: str = ""
    stream_url: str = ""  # where the control plane dials exec, console, … (wss://…)
    self_fencing: bool = False  # it stops highly available workloads when its lease ends
    fault: Reason | None = None  # why the agent does not understand what it is answered


@dataclass(kw_only=True)
class Host:
    """An enrolled machine.

    ``capacity_*`` comes from the fingerprint; ``claimed_*`` is the sum of its workloads' claims.
    ``version`` counts every change of claims: a placement commits only against the one it read.
    ``revision`` counts every change of what is desired on the host, for delta syncs.
    ``scheduling_state`` is what an operator made of it (ready, cordoned, draining, maintenance);
    a host that speaks is in that state, and one that was silent comes back to it.
    ``lease_seconds`` is what its last sync was granted. ``known_off`` says how it is known to be
    off while its state is fenced; with ``without_volumes`` an operator says as well that what is
    highly available starts elsewhere without the volumes that are on it.
    """

    id: str
    name: str
    cluster_id: str
    state: HostState = HostState.ENROLLING
    scheduling_state: HostState = HostState.READY
    labels: dict[str, str] = field(default_factory=dict)  # zone and rack are labels
    architecture: str = ""
    capacity_vcpus: float = 0.0
    capacity_memory: int = 0
    capacity_disk: int = 0
    claimed_vcpus: float = 0.0
    claimed_memory: int = 0
    claimed_disk: int = 0
    facts: dict[str, Any] = field(default_factory=dict)  # the last Fingerprint, as JSON
    tunnel_address: str | None = None  # the fingerprint's, to be asked for without all the facts
    machine_id: str | None = None  # of the machine that it is, as the facts have it
    certificate_serial: str | None = None  # hexadecimal; only this one may sync,
    previous_certificate_serial: str | None = None  # or this, until the new one is first used
    certificate_expires_at: datetime | None = None
    certificate_issuer: str | None = None  # fingerprint of the CA; None: one of before 0009
    trusted_authorities: list[str] | None = None  # fingerprints, as its agent says; None: unsaid
    join_token_hash: str | None = None  # SHA-256, cleared on use
    join_token_expires_at: datetime | None = None
    lease_expires_at: datetime | None = None
    lease_seconds: float = 30.0
    renewals: int = 0  # counts syncs: each renews the lease
    last_seen_at: datetime | None = None
    sync_run: str = ""  # of the last sync that was taken in, see ``domain.sync_order``
    sync_run_before: str = ""
    sync_number: int = 0  # in ``sync_run``
    file_systems: list[dict[str, Any]] | None = None  # ObservedFileSystem as JSON; None: unsaid
    fullness: float = 0.0  # share in use of the fullest of them
    known_off: str | None = None  # fenced | confirmed
    without_volumes: bool = False
    revision: int = 0
    prune_nonce: int = 0  # counts requests to remove the images that it does not need
    version: int = 1
    created_at: datetime


@dataclass(kw_only=True)
class HostAccess:
    """How virtmgr itself logs in to a host by ssh, to install or mend what is on it.

    ``sealed`` holds the credentials, readable with the control plane's own key only (see
    ``ports.vault``). It is emptied at the end of the operation that they were given for, unless
    ``kept``.
    """

    host_id: str
    address: str  # name or IP address
    port: int = 22
    user: str
    host_key: str  # the fingerprint that the host's ssh server must show, as SHA256:…
    vms: bool = True  # False: no libvirt and no QEMU, containers only
    sealed: str | None = None
    kept: bool = False


@dataclass(kw_only=True)
class Pool:
    """Where a host keeps disks."""

    id: str
    host_id: str
    name: str
    type: str = "directory"
    path: str = ""
    capacity: int = 0  # bytes
    used: int = 0  # bytes
    shared: bool = False
    created_at: datetime
