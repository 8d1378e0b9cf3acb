"""Control groups of containers on cgroup v1, v2 and the hybrid of both.

Source: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from virtmgr.domain.workload import IoLimits, Resources
from virtmgr.drivers.oci.mounts import Mount

CONTROLLERS = ("cpu", "io", "memory", "pids")  # those that limits need, by their v2 names
_V1_NAMES = {"io": "blkio"}
PERIOD = 100_000  # microseconds, of the CPU quota
DEFAULT_PIDS = 4096
_THROTTLES = (  # field of IoLimits, file of v1, key of v2's io.max, key of OCI's blockIO
    ("read_bytes_per_second", "read_bps", "rbps", "throttleReadBpsDevice"),
    ("write_bytes_per_second", "write_bps", "wbps", "throttleWriteBpsDevice"),
    ("read_operations_per_second", "read_iops", "riops", "throttleReadIOPSDevice"),
    ("write_operations_per_second", "write_iops", "wiops", "throttleWriteIOPSDevice"),
)
_DELEGATED = ("cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads")


class Layout(StrEnum):
    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"  # v1 controllers, and a v2 hierarchy beside them
    NONE = "none"


@dataclass(frozen=True)
class Hierarchies:
    """Where the host's cgroup hierarchies are mounted."""

    layout: Layout
    unified: Path | None = None  # the v2 hierarchy, in V2 and HYBRID
    v1: tuple[tuple[str, Path], ...] = ()  # controller or name=…, mount point

    def v1_path(self, controller: str) -> Path | None:
        """Where the v1 controller, by its v2 name if it has one, is mounted."""
        return dict(self.v1).get(_V1_NAMES.get(controller, controller))


def detect(mounts: Iterable[Mount], options: dict[Path, str] | None = None) -> Hierarchies:
    """Tell the layout from the mount table.

    :param options: names of the controllers of a v1 mount point, comma separated; by default the
        last component of its path, as everybody mounts them.
    """
    unified: Path | None = None
    v1: list[tuple[str, Path]] = []
    for mount in mounts:
        if mount.type == "cgroup2":
            unified = mount.target
        elif mount.type == "cgroup":
            names = (options or {}).get(mount.target, mount.target.name)
            v1 += [(name, mount.target) for name in names.split(",")]
    if v1:
        layout = Layout.HYBRID if unified is not None else Layout.V1
    else:
        layout = Layout.V2 if unified is not None else Layout.NONE
    return Hierarchies(layout, unified, tuple(v1))


@dataclass(frozen=True)
class CgroupUsage:
    """Counters of one container's control group."""

    cpu_seconds: float = 0.0
    memory: int = 0
    pids: int | None = None
    disk_read: int = 0
    disk_written: int = 0


def is_in_service(own_cgroups: str) -> bool:
    """Whether a service manager has put a process of these cgroups (/proc/PID/cgroup) in one.

    Service managers go by the v2 hierarchy and by v1's name=systemd.
    """
    rows = (line.split(":", 2) for line in own_cgroups.splitlines())
    return any(path != "/" for _, names, path in rows if names in ("", "name=systemd"))


def cpu_shares(vcpus: float) -> int:
    """cgroup v1 shares (2…262144; 1024 for one CPU)."""
    return max(2, min(262144, round(1024 * vcpus)))


def cpu_quota(vcpus: float) -> int:
    """Microseconds of CPU time in each period."""
    return max(1000, round(PERIOD * vcpus))


def cpu_weight(vcpus: float) -> int:
    """cgroup v2 weight (1…10000) that runtimes derive from the v1 shares."""
    return 1 + ((cpu_shares(vcpus) - 2) * 9999) // 262142


def block_io(limits: IoLimits, devices: Iterable[int]) -> dict[str, list[dict[str, int]]]:
    """OCI ``linux.resources.blockIO``: the same limits for each device; empty without limits."""
    numbers = sorted(set(devices))
    return {
        key: [
            {"major": os.major(number), "minor": os.minor(number), "rate": rate}
            for number in numbers
        ]
        for field, _, _, key in _THROTTLES
        if (rate := getattr(limits, field)) is not None
    }


class Cgroups:
    """The control groups of this driver's containers, all below one parent."""

    def __init__(self, hierarchies: Hierarchies, parent: str) -> None:
        self.hierarchies = hierarchies
        self.parent = parent
        self._in_service = is_in_service(Path("/proc/self/cgroup").read_text())

    @property
    def _is_v2(self) -> bool:
        return self.hierarchies.layout is Layout.V2

    def runtime_path(self, workload_id: str) -> str:
        """The path that the runtime is told (OCI ``linux.cgroupsPath``)."""
        return f"/{self.parent}/{workload_id}"

    def _directory(self, controller: str, workload_id: str) -> Path | None:
        root = self.hierarchies.unified if self._is_v2 else self.hierarchies.v1_path(controller)
        return None if root is None else root / self.parent / workload_id

    def directories(self, workload_id: str) -> list[Path]:
        """The container's directory in every hierarchy, whether it is there or not."""
        roots = [path for _, path in self.hierarchies.v1]
        if self.hierarchies.unified is not None:
            roots.append(self.hierarchies.unified)
        return [root / self.parent / workload_id for root in roots]

    def can_limit_swap(self) -> bool:
        """Whether memory and swap together can be limited."""
        if self._is_v2:
            root = self.hierarchies.unified
            return root is not None and next(root.glob("*/memory.swap.max"), None) is not None
        memory = self.hierarchies.v1_path("memory")
        return memory is not None and (memory / "memory.memsw.limit_in_bytes").exists()

    def has(self, controller: str) -> bool:
        """Whether the host lets this controller, by its v2 name, be used."""
        if not self._is_v2:
            return self.hierarchies.v1_path(controller) is not None
        root = self.hierarchies.unified
        return root is not None and controller in _words(root / "cgroup.controllers")

    def enter_supervisors(self, pid: int) -> None:
        """Move a conmon out of the agent's service, so that restarting that does not end it.

        Only where the agent is in a group of its own: a move waits for all CPUs (10 ms).
        """
        if not self._in_service:
            return
        roots = [self.hierarchies.unified]
        if not self._is_v2:
            roots.append(self.hierarchies.v1_path("systemd"))
        for root in roots:
            if root is not None:
                directory = root / self.parent / "supervisors"
                directory.mkdir(parents=True, exist_ok=True)
                _write(directory / "cgroup.procs", pid)

    def delegate(self, workload_id: str, owner: int) -> None:
        """Let a container's own init manage groups below its own (systemd's rules)."""
        directory = self._directory("systemd", workload_id)
        if directory is None or not directory.exists():
            return
        os.chown(directory, owner, owner)
        for name in _DELEGATED:
            if (directory / name).exists():
                os.chown(directory / name, owner, owner)

    def freeze(self, workload_id: str, *, frozen: bool) -> None:
        """Stop or continue all its processes."""
        directory = self._directory("freezer", workload_id)
        if directory is None:
            raise FileNotFoundError(errno.ENOENT, "no freezer cgroup", workload_id)
        if self._is_v2:
            _write(directory / "cgroup.freeze", int(frozen))
        else:
            _write(directory / "freezer.state", "FROZEN" if frozen else "THAWED")

    def is_frozen(self, workload_id: str) -> bool:
        directory = self._directory("freezer", workload_id)
        if directory is None:
            return False
        try:
            if self._is_v2:
                return (directory / "cgroup.freeze").read_text().strip() == "1"
            return (directory / "freezer.self_freezing").read_text().strip() == "1"
        except FileNotFoundError:
            return False

    def oom_kills(self, workload_id: str) -> int:
        """How many processes in it the kernel has killed for want of memory."""
        directory = self._directory("memory", workload_id)
        if directory is None:
            return 0
        name = "memory.events" if self._is_v2 else "memory.oom_control"
        return _keyed(directory / name).get("oom_kill", 0)

    def usage(self, workload_id: str) -> CgroupUsage:
        """What it uses; zeros where a controller is missing."""
        return self._usage_v2(workload_id) if self._is_v2 else self._usage_v1(workload_id)

    def _usage_v1(self, workload_id: str) -> CgroupUsage:
        cpu = self._directory("cpuacct", workload_id)
        memory = self._directory("memory", workload_id)
        pids = self._directory("pids", workload_id)
        blkio = self._directory("io", workload_id)
        read, written = (0, 0) if blkio is None else _blkio(blkio)
        used = 0
        if memory is not None:
            cache = _keyed(memory / "memory.stat").get("total_inactive_file", 0)
            used = max(0, (_number(memory / "memory.usage_in_bytes") or 0) - cache)
        return CgroupUsage(
            cpu_seconds=0 if cpu is None else (_number(cpu / "cpuacct.usage") or 0) / 1e9,
            memory=used,
            pids=None if pids is None else _number(pids / "pids.current"),
            disk_read=read,
            disk_written=written,
        )

    def _usage_v2(self, workload_id: str) -> CgroupUsage:
        directory = self._directory("", workload_id)
        if directory is None:
            return CgroupUsage()
        cache = _keyed(directory / "memory.stat").get("inactive_file", 0)
        read = written = 0
        for line in _lines(directory / "io.stat"):
            pairs = dict(word.split("=", 1) for word in line.split()[1:] if "=" in word)
            read += int(pairs.get("rbytes", 0))
            written += int(pairs.get("wbytes", 0))
        return CgroupUsage(
            cpu_seconds=_keyed(directory / "cpu.stat").get("usage_usec", 0) / 1e6,
            memory=max(0, (_number(directory / "memory.current") or 0) - cache),
            pids=_number(directory / "pids.current"),
            disk_read=read,
            disk_written=written,
        )

    def apply(self, workload_id: str, resources: Resources) -> tuple[str, ...]:
        """Change the limits of a running container.

        :returns: the fields that could not be changed now, such as a memory limit below what is
            in use.
        """
        pids = resources.pids or DEFAULT_PIDS
        if self._is_v2:
            directory = self._directory("", workload_id)
            assert directory is not None
            _write(directory / "cpu.max", f"{cpu_quota(resources.vcpus)} {PERIOD}")
            _write(directory / "cpu.weight", cpu_weight(resources.vcpus))
            _write(directory / "pids.max", pids)
            return self._memory_v2(directory, resources.memory)
        cpu, process = (self._directory(name, workload_id) for name in ("cpu", "pids"))
        if cpu is not None:
            _write(cpu / "cpu.cfs_quota_us", cpu_quota(resources.vcpus))
            _write(cpu / "cpu.shares", cpu_shares(resources.vcpus))
        if process is not None:
            _write(process / "pids.max", pids)
        memory = self._directory("memory", workload_id)
        return () if memory is None else self._memory_v1(memory, resources.memory)

    def throttle(self, workload_id: str, limits: IoLimits, devices: Iterable[int]) -> None:
        """Limit what the container may do on each of these block devices; lifts other limits."""
        directory = self._directory("io", workload_id)
        if directory is None or not self.has("io"):
            return
        for number in devices:
            device = f"{os.major(number)}:{os.minor(number)}"
            if self._is_v2:
                pairs = [
                    f"{key}={getattr(limits, name) or 'max'}" for name, _, key, _ in _THROTTLES
                ]
                _write(directory / "io.max", " ".join([device, *pairs]))
                continue
            for name, file, _, _ in _THROTTLES:
                rate = getattr(limits, name) or 0
                _write(directory / f"blkio.throttle.{file}_device", f"{device} {rate}")

    def _memory_v2(self, directory: Path, limit: int) -> tuple[str, ...]:
        used = (_number(directory / "memory.current") or 0) - _keyed(directory / "memory.stat").get(
            "file", 0
        )
        if used > limit:  # the kernel would kill processes at once
            return ("resources.memory",)
        _write(directory / "memory.max", limit)
        return ()

    def _memory_v1(self, directory: Path, limit: int) -> tuple[str, ...]:
        names = ["memory.limit_in_bytes"]
        if (directory / "memory.memsw.limit_in_bytes").exists():
            names.append("memory.memsw.limit_in_bytes")
        if limit > (_number(directory / names[0]) or 0):
            names.reverse()  # memory must never pass memory and swap together
        try:
            for name in names:
                _write(directory / name, limit)
        except OSError as error:
            if error.errno == errno.EBUSY:  # more is in use, and cannot be reclaimed
                return ("resources.memory",)
            raise
        return ()

    def processes(self, workload_id: str) -> set[int]:
        """Pids in the container's groups, as the host sees them."""
        found: set[int] = set()
        for directory in self.directories(workload_id):
            for path in [directory, *directory.glob("**/")]:
                found |= {int(line) for line in _lines(path / "cgroup.procs")}
        return found

    def remove(self, workload_id: str) -> None:
        """Remove its groups in every hierarchy; no error if they are gone."""
        for directory in set(self.directories(workload_id)):
            _remove_groups(directory)

    def remove_parent(self) -> None:
        """Remove the groups that all containers share, if nothing is in them any more."""
        for directory in set(self.directories("")):
            _remove_groups(directory)


def _remove_groups(directory: Path) -> None:
    for path in sorted(directory.glob("**/"), key=lambda path: -len(path.parts)):
        try:
            path.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise


def _write(path: Path, value: object) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, str(value).encode())
    finally:
        os.close(file)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR):
            return []
        raise


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdecimal() else None


def _keyed(path: Path) -> dict[str, int]:
    """A flat keyed file: one ``name number`` a line."""
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _blkio(directory: Path) -> tuple[int, int]:
    read = written = 0
    for line in _lines(directory / "blkio.throttle.io_service_bytes"):
        words = line.split()
        if len(words) == 3 and words[1] == "Read":
            read += int(words[2])
        elif len(words) == 3 and words[1] == "Write":
            written += int(words[2])
    return read, written
