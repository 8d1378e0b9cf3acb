"""The OCI bundle: from a desired workload to config.json (OCI runtime-spec config.md). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtmgr.domain.errors import DriverError
from virtmgr.domain.image import ContainerConfig
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.workload import Init
from virtmgr.drivers.oci import cgroups, seccomp
from virtmgr.drivers.oci.capabilities import capabilities_for
from virtmgr.drivers.oci.users import User

OCI_VERSION = "1.0.2"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ID_COUNT = 65536

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_VIEWS = ("cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "swaps", "uptime")
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger")


@dataclass(frozen=True)
class VolumeBind:
    """A volume's mount point on the host and where it goes."""

    source: Path
    path: str
    read_only: bool


@dataclass(frozen=True)
class BundleFacts:
    """What the bundle needs to know besides the workload."""

    rootfs: Path
    etc: Path
    id_base: int
    cgroup_path: str
    user: User = field(default_factory=User)
    volumes: tuple[VolumeBind, ...] = ()
    proc_files: tuple[Path, ...] = ()  # what lxcfs offers
    limit_swap: bool = True
    controllers: frozenset[str] = frozenset(cgroups.CONTROLLERS)
    disks: tuple[int, ...] = ()  # device numbers of the root disk and the volumes
    open_files: tuple[int, int] = (1024, 16384)  # soft and hard limit
    architecture: str = "x86_64"
    annotations: Mapping[str, str] = field(default_factory=dict)


def image_config(workload: DesiredWorkload) -> ContainerConfig:
    """How the image says it runs; defaults where it says nothing."""
    config = None if workload.image is None else workload.image.manifest.config
    return config or ContainerConfig()


def effective_init(workload: DesiredWorkload) -> Init:
    return workload.init or Init(image_config(workload).init)


def command_line(workload: DesiredWorkload) -> tuple[str, ...]:
    """What the container runs.

    App: the image's entrypoint, then the spec's command in place of the image's, as
    ``docker run IMAGE COMMAND`` does. System: the image's entrypoint and command, else /sbin/init.

    :raises DriverError: nothing says what to run.
    """
    config = image_config(workload)
    if effective_init(workload) is Init.SYSTEM:
        return (*config.entrypoint, *config.command) or ("/sbin/init",)
    command = workload.spec.command
    line = (*config.entrypoint, *(config.command if command is None else command))
    if not line:
        raise DriverError(
            f"cannot run workload {workload.name}: neither its image nor its spec has a command",
            code="no_command",
            hint="set spec.command",
        )
    return line


def environment(
    workload: DesiredWorkload, *, tty: bool, more: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Variables as ``NAME=value``: defaults, the image's, the spec's, then ``more``."""
    system = effective_init(workload) is Init.SYSTEM
    # systemd and cloud-init know a short list of values; lxc is the one that fits what we offer.
    variables = {"PATH": PATH, "container": "lxc" if system else "oci"}
    if tty:
        variables["TERM"] = "xterm"
    if not system:
        variables["HOSTNAME"] = workload.name
    variables.update(entry.partition("=")[::2] for entry in image_config(workload).env)
    variables.update(workload.spec.env)
    variables.update(more or {})
    return tuple(f"{name}={value}" for name, value in variables.items())


def process(
    init: Init,
    *,
    arguments: Iterable[str],
    env: Iterable[str],
    workdir: str,
    user: User,
    tty: bool,
    open_files: tuple[int, int],
) -> dict[str, Any]:
    """The ``process`` object, for a container's init and for commands run inside alike."""
    names = list(capabilities_for(init))
    held = names if user.uid == 0 else []
    env = list(env)
    if not any(entry.startswith("HOME=") for entry in env):
        env.append(f"HOME={user.home}")
    found: dict[str, Any] = {
        "terminal": tty,
        "user": {"uid": user.uid, "gid": user.gid, "umask": 0o022},
        "args": list(arguments),
        "env": env,
        "cwd": workdir,
        "capabilities": {"bounding": names, "effective": held, "permitted": held},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": open_files[0], "hard": open_files[1]}],
        "noNewPrivileges": init is Init.APP,
    }
    if user.groups:
        found["user"]["additionalGids"] = list(user.groups)
    return found


def build(workload: DesiredWorkload, facts: BundleFacts) -> dict[str, Any]:
    """The whole config.json."""
    init = effective_init(workload)
    system = init is Init.SYSTEM
    mapping = [{"containerID": 0, "hostID": facts.id_base, "size": _ID_COUNT}]
    namespaces = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")
    return {
        "ociVersion": OCI_VERSION,
        "hostname": workload.name,
        "process": process(
            init,
            arguments=command_line(workload),
            env=environment(workload, tty=system),
            workdir="/" if system else workload.spec.workdir or image_config(workload).workdir,
            user=facts.user,
            tty=system,
            open_files=facts.open_files,
        ),
        "root": {"path": str(facts.rootfs), "readonly": False},
        "mounts": _mounts(init, facts),
        "annotations": {"virtmgr.workload": workload.id, **facts.annotations},
        "linux": {
            "uidMappings": mapping,
            "gidMappings": mapping,
            "namespaces": [{"type": name} for name in namespaces],
            "cgroupsPath": facts.cgroup_path,
            "resources": _resources(workload, facts),
            "seccomp": seccomp.profile(init, facts.architecture),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": [*_READ_ONLY, *([] if system else ["/proc/sys"])],
        },
    }


def _resources(workload: DesiredWorkload, facts: BundleFacts) -> dict[str, Any]:
    asked = workload.spec.resources
    found: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}
    if "memory" in facts.controllers:
        found["memory"] = {"limit": asked.memory}
        if facts.limit_swap:
            found["memory"]["swap"] = asked.memory  # memory and swap together: no swap
    if "cpu" in facts.controllers:
        found["cpu"] = {
            "shares": cgroups.cpu_shares(asked.vcpus),
            "quota": cgroups.cpu_quota(asked.vcpus),
            "period": cgroups.PERIOD,
        }
    if "pids" in facts.controllers:
        found["pids"] = {"limit": asked.pids or cgroups.DEFAULT_PIDS}
    if "io" in facts.controllers and (throttles := cgroups.block_io(asked.io, facts.disks)):
        found["blockIO"] = throttles
    return found


def _mount(path: str, type_: str, *options: str, source: str | None = None) -> dict[str, Any]:
    return {
        "destination": path,
        "type": type_,
        "source": source or type_,
        "options": list(options),
    }


def _mounts(init: Init, facts: BundleFacts) -> list[dict[str, Any]]:
    system = init is Init.SYSTEM
    quiet = ("nosuid", "noexec", "nodev")
    terminals = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    found = [
        _mount("/proc", "proc", *quiet),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", *terminals),
        _mount("/dev/shm", "tmpfs", *quiet, "mode=1777", "size=65536k", source="shm"),
        _mount("/dev/mqueue", "mqueue", *quiet),
        _mount("/sys", "sysfs", *quiet, "ro"),
        _mount("/sys/fs/cgroup", "cgroup", *quiet, "relatime", "rw" if system else "ro"),
    ]
    if system:
        found += [
            _mount(f"/proc/{file.name}", "bind", "bind", "ro", *quiet, source=str(file))
            for file in sorted(facts.proc_files)
            if file.name in _VIEWS
        ]
        found += [
            _mount("/run", "tmpfs", "nosuid", "nodev", "mode=755"),
            _mount("/run/lock", "tmpfs", *quiet, "mode=1777", "size=5120k"),
            _mount("/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"),
        ]
    else:
        found += [
            _mount(f"/etc/{name}", "bind", "bind", "rw", *quiet, source=str(facts.etc / name))
            for name in ("hostname", "hosts", "resolv.conf")
        ]
    for volume in sorted(facts.volumes, key=lambda volume: volume.path):
        access = "ro" if volume.read_only else "rw"
        options = ("rbind", access, "nosuid", "nodev", "rprivate")
        found.append(_mount(volume.path, "bind", *options, source=str(volume.source)))
    return found
