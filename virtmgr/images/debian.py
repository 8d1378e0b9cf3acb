"""Debian images from the distribution's own packages: debootstrap, then a layer or a disk.

Maintainer scripts run in namespaces of their own, so that no process and no mount of theirs
outlives them, and may start no service (policy-rc.d).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from virtmgr.domain.compression import Compression
from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import Disk, ImageManifest, ImageType
from virtmgr.domain.workload import Kind
from virtmgr.images.apt import debian_architecture, mirror_for, sources
from virtmgr.images.blobs import BlobStore
from virtmgr.images.bootdisk import make_disk
from virtmgr.images.limits import ImportLimits
from virtmgr.images.rootfs import import_root_fs
from virtmgr.images.task import Task
from virtmgr.ports.images import BuildRequest

_BASE = ("systemd", "systemd-sysv", "dbus", "iproute2", "ca-certificates")
_CONTAINER = ("iputils-ping", "netbase", "less")
_VM_BASE = ("udev", "ifupdown", "isc-dhcp-client", "netbase", "python3")
# Packages that debootstrap cannot install, as they need virtual ones: apt can.
_CONTAINER_LATER = ("cloud-init",)
_VM_LATER = (
    "initramfs-tools",
    "linux-image-cloud-{architecture}",
    "grub-pc-bin",
    "grub2-common",
    "cloud-init",
    "cloud-guest-utils",
    "openssh-server",
    "qemu-guest-agent",
    "iputils-ping",
    "less",
)
_ISOLATE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "TMPDIR": "/tmp",
}
_APT_CONFIGURATION = 'Acquire::Languages "none";\nAPT::Install-Recommends "false";\n'
_CLOUD_CONFIGURATION_FILE = "etc/cloud/cloud.cfg.d/90_virtmgr.cfg"
_CLOUD_CONFIGURATION = """\
datasource_list: [NoCloud, None]
locale: C.UTF-8
"""
_CLOUD_NETWORK = """\
system_info:
  network:
    renderers: [eni]
"""
_HOT_PLUG_RULES = """\
# A CPU that is plugged in while the system runs comes to it offline.
ACTION=="add", SUBSYSTEM=="cpu", ATTR{online}=="0", ATTR{online}="1"
"""


def build(
    request: BuildRequest, *, store: BlobStore, cache: Path, limits: ImportLimits, task: Task
) -> ImageManifest:
    """Build it; everything temporary is beneath the store's scratch directory.

    :raises ImageError: a tool failed or is missing.
    """
    if request.kind is Kind.VM and debian_architecture() != "amd64":
        raise ImageError(
            f"Debian VM images cannot be built on {os.uname().machine} yet",
            hint="Import Debian's own cloud image by its URL.",
        )
    with store.scratch() as scratch:
        root = scratch / "root"
        _bootstrap(request, root, cache, task)
        if request.kind is Kind.CONTAINER:
            task.phase("installing cloud-init")
            _install(root, _CONTAINER_LATER, task)
            _write(root / _CLOUD_CONFIGURATION_FILE, _CLOUD_CONFIGURATION)
            _clean(root)
            return _container(request, root, scratch, store, limits, task)
        _make_bootable(root, task)
        _clean(root)
        return _disk(root, scratch, store, task)


def _bootstrap(request: BuildRequest, root: Path, cache: Path, task: Task) -> None:
    known = sources()
    mirror = request.mirror or mirror_for(request.suite, known)
    packages = _BASE + (_VM_BASE if request.kind is Kind.VM else _CONTAINER)
    debs = cache / "debootstrap" / request.suite
    debs.mkdir(parents=True, exist_ok=True)
    root.mkdir(mode=0o755)
    task.phase(f"installing Debian {request.suite} from {mirror}")
    task.run(
        [
            *_ISOLATE,
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(packages)}",
            f"--cache-dir={debs}",
            request.suite,
            str(root),
            mirror,
        ],
        environment=_ENVIRONMENT,
    )
    entries = [f"deb {mirror} {request.suite} main"] + [
        f"deb {source.uri} {source.suite} main"
        for source in known
        if source.suite in (f"{request.suite}-updates", f"{request.suite}-security")
        and "main" in source.components
    ]
    _write(root / "etc/apt/sources.list", "\n".join(dict.fromkeys(entries)) + "\n")
    _write(root / "etc/apt/apt.conf.d/90virtmgr", _APT_CONFIGURATION)


def _make_bootable(root: Path, task: Task) -> None:
    _write(root / "etc/kernel-img.conf", "do_symlinks = yes\ndo_initrd = yes\n")
    task.phase("installing kernel, cloud-init, ssh and guest agent")
    _install(root, [name.format(architecture=debian_architecture()) for name in _VM_LATER], task)
    _write(root / _CLOUD_CONFIGURATION_FILE, _CLOUD_CONFIGURATION + _CLOUD_NETWORK)
    _write(root / "etc/udev/rules.d/80-virtmgr-hot-plug.rules", _HOT_PLUG_RULES)
    _write(root / "etc/fstab", "LABEL=root / ext4 errors=remount-ro 0 1\n")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()


def _install(root: Path, packages: Sequence[str], task: Task) -> None:
    """Install packages by the root's own apt; none of their services is started."""
    policy = root / "usr/sbin/policy-rc.d"
    _write(policy, "#!/bin/sh\nexit 101\n", 0o755)
    _chroot(root, ["apt-get", "--quiet", "update"], task)
    _chroot(root, ["apt-get", "--quiet", "--yes", "install", *packages], task)
    policy.unlink()


def _chroot(root: Path, arguments: list[str], task: Task) -> None:
    task.run(
        [*_ISOLATE, f"--mount-proc={root}/proc", "chroot", str(root), *arguments],
        environment=_ENVIRONMENT,
    )


def _clean(root: Path) -> None:
    """Take out what is the builder's, and what must differ between guests."""
    for pattern in ("var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/log/*.log"):
        for path in root.glob(pattern):
            path.unlink()
    for name in ("var/lib/apt/lists", "var/log/apt", "tmp", "run"):
        for path in (root / name).iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _write(root / "etc/machine-id", "")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    _write(root / "etc/hostname", "debian\n")
    _write(root / "etc/resolv.conf", "")


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.unlink(missing_ok=True)  # packages may have put a link there
    path.write_text(text)
    path.chmod(mode)


def _container(
    request: BuildRequest,
    root: Path,
    scratch: Path,
    store: BlobStore,
    limits: ImportLimits,
    task: Task,
) -> ImageManifest:
    archive = scratch / "root.tar"
    task.phase("packing the layer")
    excludes = [f"--exclude=./{name}/*" for name in ("dev", "proc", "sys", "run")]
    task.run(
        [
            "tar",
            "--create",
            f"--file={archive}",
            "--format=posix",
            "--pax-option=delete=atime,delete=ctime",
            "--numeric-owner",
            "--sort=name",
            "--anchored",
            *excludes,
            f"--directory={root}",
            ".",
        ]
    )
    return import_root_fs(
        archive,
        Compression.NONE,
        init=request.init or "system",
        architecture=os.uname().machine,
        store=store,
        limits=limits,
        task=task,
    )


def _disk(root: Path, scratch: Path, store: BlobStore, task: Task) -> ImageManifest:
    disk = scratch / "disk.qcow2"
    size = make_disk(root, disk, scratch, task)
    task.phase("storing the disk")
    return ImageManifest(
        type=ImageType.DISK,
        architecture=os.uname().machine,
        disk=Disk(blob=store.adopt(disk), format="qcow2", virtual_size=size),
    )
