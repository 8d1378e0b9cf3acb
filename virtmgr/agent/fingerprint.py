"""What this host is: CPU, memory, kernel features, drivers. Read at agent start."""

from __future__ import annotations

import os
import platform
import socket
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from virtmgr import __version__
from virtmgr.domain.host import DriverFacts, Fingerprint, Tunnel
from virtmgr.ports.host import HostStorage

_PROC = Path("/proc")
_SYS = Path("/sys")


def boot_id(run_directory: Path) -> str:
    """Identifies the host's present boot.

    The kernel's own id, and a file that lives as long as the run directory: containers and lab
    hosts reboot without their kernel.
    """
    marker = run_directory / "boot-id"
    if not marker.exists():
        run_directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        temporary = marker.with_suffix(".new")
        temporary.write_text(uuid.uuid4().hex)
        temporary.replace(marker)
    kernel = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{kernel}-{marker.read_text().strip()}"


def forget_boot(run_directory: Path) -> None:
    """Let the next agent take this host for rebooted."""
    (run_directory / "boot-id").unlink(missing_ok=True)


def fingerprint(
    *,
    boot: str,
    storage: HostStorage,
    drivers: Iterable[DriverFacts],
    accelerator: tuple[str, str],
    network_features: Mapping[str, bool],
    tunnel: Tunnel,
    stream_url: str,
    data_directory: Path,
) -> Fingerprint:
    """Everything that the control plane wants to know about this host.

    :param network_features: what the kernel's network can do, found out by trying.
    :param tunnel: where overlay networks reach other hosts.
    :param accelerator: what VMs run under (``kvm``, ``tcg``, ``none``), and why not kvm.
    """
    disks = storage.pools()
    usage = os.statvfs(data_directory)
    return Fingerprint(
        hostname=socket.gethostname(),
        machine_id=machine_id(),
        boot_id=boot,
        architecture=platform.machine(),
        os=_os_name(),
        kernel=platform.release(),
        cpu_model=_cpu_model(),
        vcpus=float(len(os.sched_getaffinity(0))),
        memory=_memory(),
        disk=disks[0].capacity if disks else usage.f_blocks * usage.f_frsize,
        cgroup=cgroup_version(),
        kernel_features={**kernel_features(), **network_features},
        accelerator=accelerator[0],
        accelerator_reason=accelerator[1],
        drivers=tuple(drivers),
        bridges=_bridges(),
        tunnel=tunnel,
        agent_version=__version__,
        stream_url=stream_url,
        self_fencing=True,
    )


def cgroup_version() -> str:
    """``v2`` (unified), ``v1``, ``hybrid`` (v1 with a v2 mount beside it) or ``none``."""
    types = {
        fields[2]
        for line in (_PROC / "self/mounts").read_text().splitlines()
        if len(fields := line.split()) > 2 and fields[2] in ("cgroup", "cgroup2")
    }
    named = {"cgroup": "v1", "cgroup2": "v2"}
    return "hybrid" if len(types) == 2 else named[types.pop()] if types else "none"


def kernel_features() -> Mapping[str, bool]:
    """Which of the kernel's features that virtmgr uses are there; the network's it tries out."""
    filesystems = (_PROC / "filesystems").read_text().split()
    major, minor = (int(part) for part in platform.release().split(".")[:2])
    return {
        "overlayfs": "overlay" in filesystems,
        "user_namespaces": (_PROC / "self/ns/user").exists(),
        "network_namespaces": (_PROC / "self/ns/net").exists(),
        "seccomp": "Seccomp:" in (_PROC / "self/status").read_text(),
        "idmapped_mounts": (major, minor) >= (5, 12),
        "kvm_device": Path("/dev/kvm").exists(),
        "tun": Path("/dev/net/tun").exists(),
        "apparmor": (_SYS / "module/apparmor").exists(),
        "selinux": (_SYS / "fs/selinux").exists(),
    }


def machine_id() -> str:
    """machine-id(5) of this host; empty where it has none."""
    path = Path("/etc/machine-id")
    return path.read_text().strip() if path.exists() else ""


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _cpu_model() -> str:
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor()


def _memory() -> int:
    for line in (_PROC / "meminfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _bridges() -> tuple[str, ...]:
    found = (path.parent.name for path in (_SYS / "class/net").glob("*/bridge"))
    return tuple(sorted(name for name in found if not name.startswith("vmb")))
