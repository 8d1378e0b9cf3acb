"""The workload: one schema for virtual machines, system and application containers."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.image import ImageType
from virtmgr.domain.values import Bytes, Labels, Name, Reference, Value

MIB = 1024**2
GIB = 1024**3


class Kind(StrEnum):
    VM = "vm"
    CONTAINER = "container"


class Init(StrEnum):
    """What a container runs: a whole userland with its own init, or one process."""

    SYSTEM = "system"
    APP = "app"


class PowerState(StrEnum):
    """The power state that a workload's owner asks for."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"


class RestartPolicy(StrEnum):
    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


def _check_address(text: str) -> str:
    if text == "auto":
        return text
    return str(ipaddress.ip_address(text))


def _check_path(path: str) -> str:
    parts = path.split("/")
    if not path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError("give an absolute path without '..'")
    return path


AbsolutePath = Annotated[
    str, Field(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$"), AfterValidator(_check_path)
]
_Argument = Annotated[str, Field(max_length=131072, pattern=r"^[^\x00]*$")]


# Less, and a process that is to end would wait long for what it has begun to write.
_ByteRate = Annotated[Bytes, Field(ge=64 * 1024)]
_OperationRate = Annotated[int, Field(ge=10)]


class IoLimits(Value):
    """What each disk may do at most. What is left out is not limited."""

    read_bytes_per_second: _ByteRate | None = Field(
        None, description="Read in a second, such as 50MiB. At least 64KiB."
    )
    write_bytes_per_second: _ByteRate | None = Field(
        None, description="Written in a second, such as 50MiB. At least 64KiB."
    )
    read_operations_per_second: _OperationRate | None = Field(
        None, description="Read operations in a second. At least 10."
    )
    write_operations_per_second: _OperationRate | None = Field(
        None, description="Write operations in a second. At least 10."
    )

    def is_unlimited(self) -> bool:
        return self == IoLimits()


class Resources(Value):
    """What a workload may use; also what it claims on its host and from its quota."""

    vcpus: float = Field(
        1,
        gt=0,
        le=512,
        description="Virtual CPUs. Whole for VMs; containers may take fractions, such as 0.5.",
    )
    memory: Bytes = Field(
        default=512 * MIB,
        description="Memory, in bytes or with a unit (512MiB). At least 16 MiB for VMs, "
        "4 MiB for containers.",
    )
    pids: int | None = Field(
        None,
        ge=1,
        le=4194304,
        description="Containers: most processes and threads at a time. Default 4096.",
    )
    io: IoLimits = Field(
        default_factory=lambda: IoLimits(),
        description="Limits of disk I/O. Each holds for the root disk and for every volume by "
        "itself, not for their sum. Default: none. Containers on cgroup v1: reads and direct "
        "writes only.",
    )


class RootDisk(Value):
    """The disk that holds the workload's root file system."""

    size: Bytes | None = Field(
        None,
        description="Size. Default: 10GiB for VMs and system containers, 2GiB for app; none for "
        "VMs of a kernel image.",
    )


class VolumeMount(Value):
    """A volume in a workload: a disk for a VM, a mounted file system for a container."""

    volume: Reference = Field(description="The volume, by name or id.")
    path: AbsolutePath | None = Field(
        None, description="Containers: where it is mounted. Refused for VMs."
    )
    read_only: bool = Field(False, description="Attach without the right to write.")


class NicSpec(Value):
    """A port on a network."""

    network: Reference = Field("default", description="The network, by name or id.")
    address: Annotated[str, AfterValidator(_check_address)] = Field(
        "auto", description="An address of the network, or auto for the next free one."
    )


class Port(Value):
    """A port of the host that leads to a port of the workload."""

    host: int = Field(ge=1, le=65535, description="Port on the host.")
    guest: int = Field(ge=1, le=65535, description="Port in the workload.")
    protocol: Literal["tcp", "udp"] = Field("tcp", description="tcp or udp.")
    address: Annotated[str, AfterValidator(_check_address)] = Field(
        "127.0.0.1",
        description="Host address to publish on. Default: loopback only; 0.0.0.0 for every one.",
    )


class Affinity(Value):
    """Keep near to, or away from, workloads with these labels in the same project. A required
    'apart' keeps those that come later away as well."""

    mode: Literal["together", "apart"] = Field(description="together or apart.")
    labels: Labels = Field(description="Labels that the other workloads carry, all of them.")
    scope: Literal["host", "rack", "zone"] = Field("host", description="What counts as near.")
    required: bool = Field(True, description="Refuse a placement that breaks it, or only avoid it.")


class PlacementSpec(Value):
    """Where the workload may and should run."""

    cluster: Reference = Field("default", description="Cluster, by name or id.")
    host: Reference | None = Field(None, description="Only this host, by name or id.")
    require: Labels = Field(
        default_factory=dict,
        description="Labels that the host must carry. 'arch' stands for its architecture.",
    )
    prefer: Labels = Field(default_factory=dict, description="Labels that a host should carry.")
    spread_by: Literal["host", "rack", "zone"] | None = Field(
        None, description="Spread workloads made together over hosts, racks or zones."
    )
    affinity: tuple[Affinity, ...] = Field((), max_length=16, description="Affinity rules.")


class HaSpec(Value):
    """What happens to the workload when its host is lost (docs/ha.md)."""

    enabled: bool = Field(
        False,
        description="Start it again on another host once its own is lost and cannot be running it "
        "any more. Its root disk is made from the image anew there: what was written to it is "
        "lost. Its host stops it when it cannot reach the control plane.",
    )
    priority: int = Field(
        0, ge=-1000, le=1000, description="Which is started first: the greater number."
    )


_VM_ONLY = ("firmware", "boot", "cdrom", "vnc")
_APP_ONLY = ("command", "workdir", "user")
_CONTAINER_ONLY = ("init", "env")


class WorkloadSpec(Value):
    """What the owner of a workload asks for."""

    name: Name = Field(description="Unique in the project; also the host name. A DNS label.")
    kind: Kind = Field(description="vm or container.")
    init: Init | None = Field(
        None, description="Containers: system or app. Default: what the image says."
    )
    image: Reference | None = Field(
        None,
        description="Image by name, alias or id. VMs may leave it out and boot from cdrom.",
    )
    description: str = Field("", max_length=1024, description="Free text for people.")
    labels: Labels = Field(default_factory=dict, description="Key and value pairs to select by.")
    resources: Resources = Field(default_factory=lambda: Resources())
    root_disk: RootDisk = Field(default_factory=lambda: RootDisk())
    volumes: tuple[VolumeMount, ...] = Field(
        (), max_length=32, description="Volumes, which outlive the workload."
    )
    nics: tuple[NicSpec, ...] = Field(
        default_factory=lambda: (NicSpec(),),
        max_length=8,
        description="Ports on networks. Default: one on the network 'default'; [] for none.",
    )
    command: tuple[_Argument, ...] | None = Field(
        None, max_length=1024, description="App containers: replaces the image's command."
    )
    env: dict[Annotated[str, Field(pattern=r"^[^=\x00]+$")], _Argument] = Field(
        default_factory=dict, max_length=1024, description="Containers: environment variables."
    )
    workdir: AbsolutePath | None = Field(
        None, description="App containers: directory to start in. Default: the image's."
    )
    user: str | None = Field(
        None,
        max_length=256,
        description="App containers: user[:group], names or numbers. Default: the image's.",
    )
    ports: tuple[Port, ...] = Field((), max_length=256, description="Published ports.")
    user_data: str | None = Field(
        None, max_length=65536, description="VMs and system containers: cloud-init user data."
    )
    firmware: Literal["bios", "uefi"] | None = Field(
        None, description="VMs: bios (default) or uefi."
    )
    boot: tuple[Literal["disk", "cdrom", "network"], ...] | None = Field(
        None, max_length=3, description="VMs: boot order. Default: disk, then cdrom."
    )
    cdrom: Reference | None = Field(None, description="VMs: an ISO image in the CD drive.")
    vnc: bool | None = Field(None, description="VMs: a graphical console. Default true.")
    restart: RestartPolicy = Field(
        RestartPolicy.ON_FAILURE,
        description="What happens when it ends by itself: never, on-failure or always, "
        "with back-off.",
    )
    stop_timeout: int = Field(
        30, ge=0, le=3600, description="Seconds for a graceful stop before it is forced."
    )
    protected: bool = Field(False, description="Refuses stop and delete while true.")
    ha: HaSpec = Field(default_factory=lambda: HaSpec())
    placement: PlacementSpec = Field(default_factory=lambda: PlacementSpec())
    state: PowerState = Field(
        PowerState.RUNNING, description="Desired power state: running, stopped or paused."
    )

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        for name, why in self.misfits():
            raise ValueError(f"{name}: {why}")
        return self

    def misfits(self) -> list[tuple[str, str]]:
        """Fields that do not fit the kind, each with the reason; empty when all is well."""
        found: list[tuple[str, str]] = []
        is_vm = self.kind is Kind.VM
        given = self.model_fields_set
        used = {name for name in given if getattr(self, name) not in (None, (), {})}
        if is_vm:
            found += [(n, "is for containers, not for VMs") for n in _CONTAINER_ONLY if n in used]
            found += [(n, "is for app containers, not for VMs") for n in _APP_ONLY if n in used]
            if self.resources.vcpus != int(self.resources.vcpus):
                found.append(("resources.vcpus", "is a whole number for VMs"))
            if self.resources.memory < 16 * MIB:
                found.append(("resources.memory", "is at least 16 MiB for VMs"))
            if self.resources.pids is not None:
                found.append(("resources.pids", "is for containers, not for VMs"))
            if self.image is None and self.cdrom is None:
                found.append(("image", "is needed, or a cdrom to boot from"))
            found += [
                (f"volumes.{i}.path", "is for containers; a VM sees the volume as a disk")
                for i, mount in enumerate(self.volumes)
                if mount.path is not None
            ]
        else:
            found += [(n, "is for VMs, not for containers") for n in _VM_ONLY if n in used]
            if self.init is Init.SYSTEM:
                found += [
                    (n, "is for app containers, not for system containers")
                    for n in _APP_ONLY
                    if n in used
                ]
            if self.init is Init.APP and "user_data" in used:
                found.append(("user_data", "is for VMs and system containers"))
            if self.image is None:
                found.append(("image", "is needed"))
            if self.resources.memory < 4 * MIB:
                found.append(("resources.memory", "is at least 4 MiB for containers"))
            found += [
                (f"volumes.{i}.path", "is needed: where the volume is mounted")
                for i, mount in enumerate(self.volumes)
                if mount.path is None
            ]
        return found

    def root_disk_size(self, image_type: ImageType | None = None) -> int:
        """Bytes of the root disk, the default filled in; 0: it has none.

        :param image_type: of its image, if it has one: a kernel's guest lives in its RAM disk.
        """
        if self.root_disk.size is not None:
            return self.root_disk.size
        return usual_root_disk(self.init, image_type)


def usual_root_disk(init: Init | None, image_type: ImageType | None = None) -> int:
    """Bytes of a root disk that nobody has given a size; 0: there is none."""
    if image_type is ImageType.KERNEL:
        return 0
    return 2 * GIB if init is Init.APP else 10 * GIB


class State(StrEnum):
    """The observed state; ``virtmgr.domain.states`` holds the legal transitions."""

    PENDING = "pending"
    PREPARING = "preparing"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    UNKNOWN = "unknown"
    DELETING = "deleting"


class Reason(Value):
    """Why something is as it is: stable code, text for people, and what to do next."""

    code: str
    message: str
    hint: str | None = None

    @classmethod
    def of(cls, error: VirtmgrError) -> Reason:
        """An error, as the reason for a state."""
        return cls(code=error.code, message=error.message, hint=error.hint)


_NEARLY_FULL: Final = 0.95


class Filling(Value):
    """How full a file system is, as its guest sees it; in bytes."""

    used: int
    free: int  # that may still be written

    @property
    def whole(self) -> int:
        """What fits on it: less than the disk, since the file system takes some itself."""
        return self.used + self.free

    @property
    def is_nearly_full(self) -> bool:
        """Whether what writes to it is about to fail."""
        return self.used >= _NEARLY_FULL * self.whole


class Usage(Value):
    """Resources in use at ``at``; counters only ever grow while the workload runs."""

    at: datetime
    cpu_seconds: float = 0.0
    cpus: float | None = None  # in use on average since the usage before; 1 is one whole CPU
    memory: int = 0  # bytes
    disk: int = 0  # bytes used of the root disk
    disk_read: int = 0  # bytes since start
    disk_written: int = 0
    network_received: int = 0  # bytes since start
    network_sent: int = 0
    pids: int | None = None
    disk_free: int | None = None  # bytes that may still be written to the root disk; null: unknown
    volumes: Mapping[str, Filling] | None = None  # by their ids; null: what is on them is not seen

    def since(self, before: Usage | None) -> Usage:
        """The same, with ``cpus`` since ``before``: unknown if it started anew in between."""
        if before is None:
            return self
        seconds = (self.at - before.at).total_seconds()
        used = self.cpu_seconds - before.cpu_seconds
        if seconds <= 0 or used < 0:
            return self
        return self.model_copy(update={"cpus": round(used / seconds, 4)})


class Hardware(Value):
    """What a VM that runs sees, until its next start, wherever it moves meanwhile."""

    machine: str  # machine type, with its version
    cpu: str  # model; "host": its host's own


class WorkloadStatus(Value):
    """What was last observed of a workload on its host."""

    state: State = State.PENDING
    reason: Reason | None = None
    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    needs_restart: tuple[str, ...] = ()  # spec fields that take effect at the next start
    progress: str | None = None  # what is being done, for people: "fetching image 43%"
    hardware: Hardware | None = None  # of a VM that runs
    usage: Usage | None = None


@dataclass(kw_only=True)
class Nic:
    """A workload's port on a network. ``index`` is its place in ``spec.nics``."""

    id: str
    workload_id: str
    network_id: str
    index: int
    mac: str


@dataclass(kw_only=True)
class Workload:
    """A VM or container in the inventory.

    ``spec`` and ``generation`` are desired, ``status`` and ``observed_generation`` observed.
    ``claim_*`` is the capacity taken on ``host_id`` and from the project's quota, committed in
    the same transaction as the spec. ``revision`` is the host's desired revision at which this
    row last changed; ``restart_nonce`` counts requested restarts, and ``force_stop`` asks that
    the pending stop does not wait. ``clone_of`` is the workload whose disk is still being copied.
    ``ha_since`` is the generation since which it is highly available; None: it is not.
    """

    id: str
    project_id: str
    name: str
    kind: Kind
    init: Init | None
    spec: WorkloadSpec
    generation: int = 1
    status: WorkloadStatus = field(default_factory=WorkloadStatus)
    observed_generation: int = 0
    host_id: str | None = None
    cluster_id: str
    image_id: str | None = None
    cdrom_image_id: str | None = None
    claim_vcpus: float = 0.0
    claim_memory: int = 0
    claim_disk: int = 0
    # The explanation of the last placement: to be written. To read it, ask the repository.
    placement: dict[str, Any] | None = field(default=None, compare=False, repr=False)
    restart_nonce: int = 0
    force_stop: bool = False
    deleting: bool = False
    clone_of: str | None = None
    ha_since: int | None = None
    revision: int = 0
    version: int = 1
    created_at: datetime
    updated_at: datetime

    @property
    def is_known_to_host(self) -> bool:
        """Whether its host has said that it knows it to be highly available, if it is."""
        return self.observed_generation >= (self.ha_since or 0)
