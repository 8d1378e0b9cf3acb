"""Where the driver keeps what belongs to a workload, and the two records about it.

Durable, below the state directory: ``record.json``, the private disk, the log. Of this boot only,
below the run directory: the bundle, mount points, sockets, ``run.json``.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from virtmgr.domain.errors import InvalidRequest
from virtmgr.domain.values import known_fields


@dataclass(frozen=True)
class Place:
    """All paths of one workload."""

    workload_id: str
    state: Path
    run: Path

    @property
    def record(self) -> Path:
        return self.state / "record.json"

    @property
    def disk(self) -> Path:
        return self.state / "disk.img"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def run_record(self) -> Path:
        return self.run / "run.json"

    @property
    def config(self) -> Path:
        return self.run / "config.json"

    @property
    def rootfs(self) -> Path:
        return self.run / "rootfs"

    @property
    def layers(self) -> Path:
        return self.run / "l"

    @property
    def disk_mount(self) -> Path:
        return self.run / "disk"

    @property
    def upper(self) -> Path:
        return self.disk_mount / "upper"

    @property
    def work(self) -> Path:
        return self.disk_mount / "work"

    @property
    def shifted_mark(self) -> Path:
        return self.disk_mount / "shifted"

    @property
    def etc(self) -> Path:
        return self.run / "etc"

    @property
    def volumes(self) -> Path:
        return self.run / "volumes"

    @property
    def container_pid(self) -> Path:
        return self.run / "pid"

    @property
    def conmon_pid(self) -> Path:
        return self.run / "conmon.pid"

    def volume(self, volume_id: str) -> Path:
        return self.volumes / volume_id

    def make(self) -> None:
        """Make the two directories."""
        for directory in (self.state, self.run):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)


@dataclass(frozen=True)
class Places:
    """The driver's two directories."""

    state_directory: Path
    run_directory: Path

    @property
    def templates(self) -> Path:
        return self.state_directory / ".templates"

    @property
    def exits(self) -> Path:
        return self.run_directory / ".exits"

    @property
    def runtime_root(self) -> Path:
        return self.run_directory / ".runtime"

    @property
    def sockets(self) -> Path:
        return self.run_directory / ".sockets"

    def exit_file(self, workload_id: str) -> Path:
        return self.exits / workload_id

    def of(self, workload_id: str) -> Place:
        """The paths of one workload.

        :raises InvalidRequest: the id could lead out of the directories.
        """
        if not workload_id or "/" in workload_id or workload_id.startswith("."):
            raise InvalidRequest(f"{workload_id!r} is no workload id")
        return Place(
            workload_id, self.state_directory / workload_id, self.run_directory / workload_id
        )

    def all(self) -> tuple[str, ...]:
        """Ids of all workloads that have a directory in either place."""
        found: set[str] = set()
        for directory in (self.state_directory, self.run_directory):
            if directory.exists():
                found |= {path.name for path in directory.iterdir() if path.is_dir()}
        return tuple(sorted(name for name in found if not name.startswith(".")))


@dataclass(frozen=True)
class Record:
    """What is known of a workload that ``prepare`` has finished."""

    workload_id: str
    id_base: int
    layers: tuple[str, ...]
    disk_size: int


@dataclass(frozen=True)
class Exit:
    """How a run ended; ``code`` None: nobody saw it."""

    code: int | None
    signal: int | None
    oom_killed: bool
    finished_at: str


@dataclass(frozen=True)
class Run:
    """One run of a container, from ``create`` on. ``*_ticks`` tell a process from its pid's heir.

    ``applied`` is the desired workload, as JSON, that the run was started from or updated to.
    """

    boot_id: str
    pid: int
    pid_ticks: int
    conmon_pid: int
    conmon_ticks: int
    started_at: str
    stop_signal: int
    id_base: int
    tty: bool
    system: bool
    applied: dict[str, Any]
    nics: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    exit: Exit | None = field(default=None)

    @property
    def started(self) -> datetime:
        return datetime.fromisoformat(self.started_at)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write_atomically(path: Path, content: str, *, durable: bool = False) -> None:
    """Replace ``path`` whole, readable by root only; ``durable``: also after a power cut."""
    half = path.with_name(path.name + ".new")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    half.rename(path)


def _load(path: Path) -> dict[str, Any] | None:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:  # torn by a power cut: as if it had not been written
        return None
    return loaded


def save_record(place: Place, record: Record) -> None:
    write_atomically(place.record, json.dumps(asdict(record)), durable=True)


def load_record(place: Place) -> Record | None:
    data = _load(place.record)
    if data is None:
        return None
    return Record(**{**known_fields(Record, data), "layers": tuple(data["layers"])})


def save_run(place: Place, run: Run) -> None:
    write_atomically(place.run_record, json.dumps(asdict(run)))


def load_run(place: Place) -> Run | None:
    """The last run since the host booted."""
    data = _load(place.run_record)
    if data is None or data["boot_id"] != boot_id():
        return None
    exit_ = data["exit"]
    data["exit"] = None if exit_ is None else Exit(**known_fields(Exit, exit_))
    data["nics"], data["volumes"] = tuple(data["nics"]), tuple(data["volumes"])
    return Run(**known_fields(Run, data))
