"""The driver port: how a host runs workloads. Drivers carry out; they decide nothing.

Every verb is idempotent: repeating it, or repeating it after a crash in its middle, ends in the
same state. Verbs block; the agent calls them from worker threads, never two at once for one
workload. Failures are raised as ``virtmgr.domain.errors.DriverError`` (or another HostError).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from socket import socket
from typing import Any, BinaryIO, Protocol, runtime_checkable

from virtmgr.domain.host import DriverFacts
from virtmgr.domain.sync import DesiredNic, DesiredWorkload, MigrationLimits
from virtmgr.domain.workload import Hardware, Init, Kind, Reason, Usage


class Feature(StrEnum):
    """What a driver may be able to do beyond the basic verbs."""

    PAUSE = "pause"
    RESIZE_VCPUS_LIVE = "resize_vcpus_live"
    SHRINK_VCPUS_LIVE = "shrink_vcpus_live"
    RESIZE_MEMORY_LIVE = "resize_memory_live"
    ATTACH_VOLUME_LIVE = "attach_volume_live"
    ATTACH_NIC_LIVE = "attach_nic_live"
    EXEC = "exec"
    CONSOLE = "console"
    DISPLAY = "display"
    LOGS = "logs"
    FILES = "files"
    CLONE = "clone"
    PUBLISH = "publish"
    MOVE = "move"
    LIVE_MIGRATION = "live_migration"
    POST_COPY = "post_copy"


@dataclass(frozen=True)
class Capabilities:
    """What a driver can do, for which kinds.

    ``why_not`` gives the reason for each feature that it has not, ``within`` how far one goes.
    """

    kinds: frozenset[Kind]
    inits: frozenset[Init] = frozenset()
    features: frozenset[Feature] = frozenset()
    why_not: Mapping[Feature, str] = field(default_factory=dict)
    within: Mapping[Feature, str] = field(default_factory=dict)


class RuntimeState(StrEnum):
    """What a driver sees of one workload."""

    ABSENT = "absent"  # nothing of it is on the host
    PREPARED = "prepared"  # disks and definition are there, it was never started since boot
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"  # it ran and ended


@dataclass(frozen=True)
class Inspection:
    """What a driver sees of one workload right now."""

    state: RuntimeState
    exit_code: int | None = None  # EXITED; None where the driver cannot know (VMs: 0 clean)
    signal: int | None = None
    oom_killed: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    pid: int | None = None  # of init or QEMU, in the host's namespace
    hardware: Hardware | None = None  # of a VM that runs


@dataclass(frozen=True)
class LocalImage:
    """An image as files on this host, verified."""

    layers: tuple[Path, ...] = ()  # unpacked layer directories, lowest first
    disk: Path | None = None
    disk_format: str = "qcow2"
    kernel: Path | None = None
    initrd: Path | None = None


@dataclass(frozen=True)
class Provision:
    """The local things that ``prepare`` and ``update`` build on."""

    image: LocalImage | None = None
    cdrom: Path | None = None
    volumes: Mapping[str, Path] = field(default_factory=dict)  # volume id → raw disk file
    id_base: int = 0  # containers: first host id of the workload's own 65,536-id range


@dataclass(frozen=True)
class Luggage:
    """What a workload takes along to another host: files by name, and small facts about them."""

    files: Mapping[str, Path]
    facts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdateResult:
    """Which changed fields of the spec took effect, and which wait for a restart."""

    needs_restart: tuple[str, ...] = ()


OnChange = Callable[[str], None]
"""Called with a workload id whenever its runtime state may have changed; from any thread."""


@runtime_checkable
class WorkloadDriver(Protocol):
    """Runs workloads of one or more kinds on this host."""

    name: str

    def capabilities(self) -> Capabilities:
        """What this driver can do on this host."""
        ...

    def facts(self) -> DriverFacts:
        """Probe the driver: version, health, and the reason where it is unhealthy."""
        ...

    def recover(self, on_change: OnChange) -> None:
        """Called once at agent start: find what runs already, clean half-made things, watch it."""
        ...

    def prepare(self, workload: DesiredWorkload, provision: Provision) -> None:
        """Make disks and definition. Afterwards ``inspect`` says PREPARED (or EXITED)."""
        ...

    def start(self, workload: DesiredWorkload, provision: Provision) -> None:
        """Start it; returns when it runs. Takes up the spec as it is now."""
        ...

    def stop(self, workload_id: str, *, timeout: float, force: bool) -> None:
        """Ask it to end, wait ``timeout`` seconds, then end it by force (at once if ``force``)."""
        ...

    def pause(self, workload_id: str) -> None: ...

    def resume(self, workload_id: str) -> None: ...

    def update(self, workload: DesiredWorkload, provision: Provision) -> UpdateResult:
        """Bring a running or prepared workload to its spec, live where possible."""
        ...

    def destroy(self, workload_id: str) -> None:
        """Remove every trace of it, running or not. Volumes are not touched."""
        ...

    def inspect(self, workload_id: str) -> Inspection: ...

    def list(self) -> tuple[str, ...]:
        """Ids of all workloads of which anything is on this host."""
        ...

    def stats(self, workload_ids: Iterable[str]) -> Mapping[str, Usage]:
        """Usage of those that run; others are left out."""
        ...

    def close(self) -> None:
        """Stop watching. Workloads go on."""
        ...


@dataclass(frozen=True)
class ExecRequest:
    """A command to run inside a workload. ``rows`` and ``columns`` size the terminal."""

    command: tuple[str, ...]
    tty: bool = False
    stdin: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    user: str | None = None
    rows: int = 24
    columns: int = 80


class ExecSession(Protocol):
    """A command that runs inside a workload. The streams are unbuffered, blocking files.

    With a terminal, ``stdin`` and ``stdout`` are the terminal and ``stderr`` is None.
    """

    stdin: BinaryIO | None
    stdout: BinaryIO
    stderr: BinaryIO | None

    def resize(self, rows: int, columns: int) -> None: ...

    def wait(self) -> int:
        """The exit code; 128 + n where signal n ended it.

        :raises HostError: the way to it was lost.
        """
        ...

    def kill(self) -> None: ...


@runtime_checkable
class CanExec(Protocol):
    def exec(self, workload_id: str, request: ExecRequest) -> ExecSession: ...


@runtime_checkable
class HasConsole(Protocol):
    def console(self, workload_id: str) -> socket:
        """A connected stream socket to the serial console or terminal; closing it detaches."""
        ...


@runtime_checkable
class HasDisplay(Protocol):
    def display(self, workload_id: str) -> socket:
        """A connected stream socket that speaks RFB (RFC 6143)."""
        ...


@runtime_checkable
class HasLogs(Protocol):
    def logs(self, workload_id: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        """Output so far (its last ``tail`` lines), then, with ``follow``, as it comes.

        A following iterator yields ``b""`` at least every second while nothing comes, so that
        its reader can give up; it ends when the workload is gone.
        """
        ...


@runtime_checkable
class HasFiles(Protocol):
    """Copies files as tar streams; paths are absolute inside the workload."""

    def pull(self, workload_id: str, path: str) -> Iterator[bytes]:
        """A tar of the file or directory at ``path``, named by its last component."""
        ...

    def push(self, workload_id: str, path: str, tar: BinaryIO) -> None:
        """Unpack ``tar`` in the directory ``path``."""
        ...


@runtime_checkable
class CanClone(Protocol):
    def clone(self, source_id: str, workload: DesiredWorkload, provision: Provision) -> None:
        """``prepare``, with a copy of another workload's root disk as its own.

        After a crash in its middle it is repeated, and whatever was half made is replaced.

        :raises DriverError: the source runs, or is not on this host.
        """
        ...


@runtime_checkable
class CanPublish(Protocol):
    def export(self, workload_id: str) -> Generator[bytes, None, None]:
        """What a workload that does not run has on its own disk, for an image to be made of.

        A container: one layer of what it changed of its image, a tar (OCI image-spec layer.md)
        that may be compressed by zstd. A VM: its root disk as a qcow2 that needs no other file.
        Yields ``b""`` at least every few seconds while nothing comes, so that its reader can give
        up. It cannot be started meanwhile; what it needed is gone once the iterator is closed.
        Raised as it is read:

        :raises DriverError: it runs, is not on this host, or has what no image can hold.
        """
        ...


@runtime_checkable
class CanMove(Protocol):
    def leave(self, workload_id: str) -> AbstractContextManager[Luggage]:
        """What a workload needs on another host; it cannot be started inside the block.

        :raises DriverError: it runs, or is not on this host.
        """
        ...

    def arrive(self, workload: DesiredWorkload, provision: Provision, luggage: Luggage) -> None:
        """``prepare``, with what came from another host. What was half made is replaced.

        The files may be linked to: nobody writes to them under their old names.

        :raises DriverError: they are not what they should be. The other host is not trusted.
        """
        ...


class Door(StrEnum):
    """One of the ways from a host to another that a live migration takes."""

    CONTROL = "control"  # between the two runtimes
    STATE = "state"  # the guest's memory and devices
    DISKS = "disks"


@dataclass(frozen=True)
class Passage:
    """Where the ways begin and end: Unix sockets in a directory that both hosts call the same.

    The source's agent listens on them and relays to the target's, which connects there.
    """

    directory: Path

    def door(self, door: Door) -> Path:
        return self.directory / door.value


@dataclass(frozen=True)
class Papers:
    """What a guest is, for the host that it comes to: small facts that only drivers understand."""

    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Departure:
    """How a live migration ended for its source: the guest is gone, or here as before."""

    departed: bool
    reason: Reason | None = None
    copied: int = 0  # bytes, where that is known


@dataclass(frozen=True)
class JobProgress:
    """How far a live migration is. ``share`` is 0 … 1, ``copied`` bytes, ``message`` for people."""

    share: float
    copied: int
    message: str = ""


class MigrationWatch(Protocol):
    """What a live migration asks and tells while it is under way; from any thread."""

    def cancelled(self) -> bool: ...

    def progress(self, progress: JobProgress) -> None: ...


@runtime_checkable
class CanMigrate(Protocol):
    """Moves guests that run. The target lets a guest run only when it is asked to
    (``take_over``), so that however a migration breaks the guest runs on one host at most."""

    def receive(self, workload: DesiredWorkload, provision: Provision) -> None:
        """Target: make all files that the guest comes to, empty; what was there is replaced.

        Does nothing where the guest is there.
        """
        ...

    def papers(self, workload_id: str, passage: Passage) -> Papers:
        """Source: what the target has to know. :raises DriverError: it does not run."""
        ...

    def admit(self, workload: DesiredWorkload, papers: Papers, passage: Passage) -> None:
        """Target: check that the guest can come, and be ready for it.

        :raises DriverError: it cannot.
        """
        ...

    def open_passage(self, passage: Passage) -> None:
        """Either: make the directory, so that the runtime can get at what is in it."""
        ...

    def enter(self, workload: DesiredWorkload, passage: Passage, door: Door) -> socket:
        """Target: a connected socket to where a way ends."""
        ...

    def grant(self, socket_path: Path) -> None:
        """Source: let the runtime connect to a socket that the agent listens on."""
        ...

    def depart(
        self,
        workload_id: str,
        passage: Passage,
        limits: MigrationLimits,
        watch: MigrationWatch,
    ) -> Departure:
        """Source: let the guest go; returns when it is known how that ended.

        :raises DriverError: that is not known; ``settle`` finds out.
        """
        ...

    def settle(self, workload_id: str) -> Departure:
        """Source: end a migration whose end nobody saw, and say how it ended.

        :raises DriverError: the runtime does not answer.
        """
        ...

    def take_over(self, workload: DesiredWorkload) -> None:
        """Target: the source has let go of the guest: let it run, or stay paused as desired.

        :raises DriverError: it is not here, or not whole.
        """
        ...


PROTOCOLS: Mapping[Feature, type] = {
    Feature.EXEC: CanExec,
    Feature.CONSOLE: HasConsole,
    Feature.DISPLAY: HasDisplay,
    Feature.LOGS: HasLogs,
    Feature.FILES: HasFiles,
    Feature.CLONE: CanClone,
    Feature.PUBLISH: CanPublish,
    Feature.MOVE: CanMove,
    Feature.LIVE_MIGRATION: CanMigrate,
}
"""What a driver that declares a feature is, too."""


class NicConnector(Protocol):
    """Puts a container's NIC in place; the network adapter implements it."""

    def connect(self, nic: DesiredNic, pid: int) -> None:
        """Make veth, address and routes of ``nic`` in the network namespace of ``pid``."""
        ...

    def disconnect(self, nic_id: str) -> None:
        """Remove the veth; no error if it is gone."""
        ...
