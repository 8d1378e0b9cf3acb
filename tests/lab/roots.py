"""Root trees of the lab's hosts: Debian, made once and shared, read-only, by all hosts.

They are kept below ``$XDG_CACHE_HOME/virtmgr/lab`` (``~/.cache``), one directory for each release
and recipe: ``bare`` is a whole tree, ``prepared`` a layer of what more is in it, and ``…/disk.img``
an ext4 file system with the tree's /var/lib, of which each host gets a copy. The mirror is the one
that the machine's apt uses, or ``$VIRTMGR_LAB_MIRROR``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.kernel import LabError, checked
from tests.lab.plan import ADMINISTRATOR, AUTOMATION, Flavour, Release

DISK_BYTES = 16 * 2**30  # of a sparse file
_RECIPE = "1"  # to be changed with what this file does
_BARE = (
    "ca-certificates", "iproute2", "iputils-ping", "openssh-server", "procps", "python3", "sudo",
)  # fmt: skip
# What docs/host-enrolment.md says that a host needs, and what tests look at hosts with.
_PREPARED = (
    "conmon", "crun", "dnsmasq-base", "e2fsprogs", "genisoimage", "ipxe-qemu", "kmod",
    "libvirt-clients", "libvirt-daemon-system", "nftables", "ovmf", "python3-libvirt",
    "python3-venv", "qemu-system-x86", "qemu-utils", "uidmap", "zstd",
)  # fmt: skip
_LOCAL_CERTIFICATES = "usr/local/share/ca-certificates"
_APT_PASSED_ON = ("Acquire::http::", "Acquire::https::", "Acquire::Check-", "Acquire::Languages")


@dataclass(frozen=True)
class RootTree:
    """What a host is made from: layers, the uppermost first, and the disk to copy."""

    layers: tuple[Path, ...]
    disk: Path


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "virtmgr/lab"


def _directory(release: Release, flavour: Flavour) -> Path:
    recipe = repr((_RECIPE, _BARE, _PREPARED if flavour is Flavour.PREPARED else ()))
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    return cache() / f"debian-{release}-{flavour}-{digest}"


def root_tree(release: Release, flavour: Flavour, say: Callable[[str], None]) -> RootTree:
    """The tree, which is made when it is not there (minutes).

    :raises LabError: it can't be made.
    """
    bare = _directory(release, Flavour.BARE)
    layers: tuple[Path, ...] = (bare / "tree",)
    _make(bare, release, Flavour.BARE, say)
    if flavour is Flavour.PREPARED:
        prepared = _directory(release, flavour)
        _make(prepared, release, flavour, say)
        layers = (prepared / "tree", *layers)
    return RootTree(layers, _directory(release, flavour) / "disk.img")


def _make(directory: Path, release: Release, flavour: Flavour, say: Callable[[str], None]) -> None:
    if directory.is_dir():
        return
    with _alone(directory):
        if directory.is_dir():
            return
        say(f"making the root tree of Debian {release} ({flavour}), once")
        directory.parent.mkdir(parents=True, exist_ok=True)
        half = directory.with_name(directory.name + ".half")
        log = directory.with_name(directory.name + ".log")
        with log.open("w") as output:
            # Mounts of the building are in a namespace of their own, and gone with it.
            done = subprocess.run(
                ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", __name__,
                 release, flavour, half],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False,
                cwd=Path(__file__).resolve().parents[2],
            )  # fmt: skip
        if done.returncode != 0:
            last = "\n".join(log.read_text().splitlines()[-15:])
            raise LabError(f"the root tree was not made; the whole log is {log}\n{last}")
        half.rename(directory)
        log.unlink()


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Others who want the same tree wait for it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_name(directory.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(release: Release, flavour: Flavour, half: Path) -> None:
    """In a mount namespace of its own: make ``half/tree`` and ``half/disk.img``."""
    if half.exists():
        shutil.rmtree(half)
    tree = half / "tree"
    tree.mkdir(parents=True)
    if flavour is Flavour.BARE:
        _debootstrap(release, tree)
        whole = tree
    else:
        whole = half / "whole"
        for name in ("whole", "work"):
            (half / name).mkdir()
        lower = _directory(release, Flavour.BARE) / "tree"
        options = f"lowerdir={lower},upperdir={tree},workdir={half / 'work'},xino=off"
        checked(["mount", "-t", "overlay", "overlay", "-o", options, str(whole)])
        _install(whole, _PREPARED)
    _make_disk(half / "disk.img", whole / "var/lib", half / "mount")
    if flavour is Flavour.PREPARED:
        checked(["umount", "--recursive", str(whole)])
        whole.rmdir()
        shutil.rmtree(half / "work")


def _debootstrap(release: Release, tree: Path) -> None:
    mirror = os.environ.get("VIRTMGR_LAB_MIRROR") or _mirror()
    options = [f"--aptopt={line}" for line in _apt_options()]
    sources = [f"deb {mirror} {release.suite}{part} main" for part in ("", "-updates")]
    checked(
        ["mmdebstrap", "--variant=minbase", f"--include={','.join(_BARE)}", *options,
         release.suite, str(tree), *sources],
    )  # fmt: skip
    for certificate in (Path("/") / _LOCAL_CERTIFICATES).glob("*.crt"):
        shutil.copy(certificate, tree / _LOCAL_CERTIFICATES)
    checked(["chroot", str(tree), "update-ca-certificates"])
    for user in (ADMINISTRATOR, AUTOMATION):
        checked(
            [
                "chroot",
                str(tree),
                "useradd",
                "--create-home",
                "--no-user-group",
                "--groups=sudo",
                "--shell=/bin/bash",
                user,
            ]
        )
    sudoers = tree / "etc/sudoers.d/virtmgr-lab"
    sudoers.write_text(f"{AUTOMATION} ALL=(ALL) NOPASSWD: ALL\n")
    sudoers.chmod(0o440)
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()


def _mirror() -> str:
    """Where the machine's apt has Debian's main archive from.

    :raises LabError: apt knows none.
    """
    form = "$(REPO_URI) $(LABEL)"
    listed = checked(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])
    for line in listed.splitlines():
        uri, _, label = line.partition(" ")
        if label == "Debian":
            return uri
    raise LabError(
        "apt has no Debian mirror (apt-get update first), and VIRTMGR_LAB_MIRROR is not set"
    )


def _apt_options() -> list[str]:
    """How the machine's apt reaches its mirror: proxies, certificates, dates."""
    return [
        line
        for line in checked(["apt-config", "dump"]).splitlines()
        if line.startswith(_APT_PASSED_ON) and not line.endswith(' "";')
    ]


def _install(root: Path, packages: tuple[str, ...]) -> None:
    """Install in a tree, with the machine's network, and start nothing."""
    for name in ("proc", "sys", "dev"):
        checked(["mount", "--rbind", f"/{name}", str(root / name)])
    for name in ("resolv.conf", "hosts"):
        (root / "etc" / name).touch()
        checked(["mount", "--bind", f"/etc/{name}", str(root / "etc" / name)])
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    apt = ["chroot", str(root), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]
    checked([*apt, "update"])
    checked([*apt, "install", "--yes", "--no-install-recommends", *packages])
    checked([*apt, "clean"])
    policy.unlink()
    for file in (root / "var/lib/apt/lists").glob("*_*"):
        file.unlink()


def _make_disk(image: Path, lib: Path, mount: Path) -> None:
    """An ext4 image: ``lib`` is /var/lib, ``upper`` and ``work`` are for the host's root."""
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    checked(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1",
             "-J", "size=16", "-L", "virtmgr-lab", str(image)])  # fmt: skip
    mount.mkdir()
    checked(["mount", "-o", "loop,noinit_itable", str(image), str(mount)])
    checked(["cp", "-a", str(lib), str(mount / "lib")])
    for name in ("upper", "work"):
        (mount / name).mkdir()
    checked(["umount", str(mount)])
    mount.rmdir()


if __name__ == "__main__":
    _build(Release(sys.argv[1]), Flavour(sys.argv[2]), Path(sys.argv[3]))
