"""Power comes to a host: ``boot.py CONFIGURATION`` in new namespaces becomes its first process.

Says its process id, as the machine counts, on standard output; waits until standard input says that
the network is there; mounts; and becomes ``init.py`` inside the host's own root. It runs by the
machine's Python, and every mount is the namespace's own: with the last process all are gone.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 32, 4096, 16384
_MNT_DETACH = 2
_DEVICES = {
    "null": (0o666, stat.S_IFCHR, 1, 3),
    "zero": (0o666, stat.S_IFCHR, 1, 5),
    "full": (0o666, stat.S_IFCHR, 1, 7),
    "random": (0o666, stat.S_IFCHR, 1, 8),
    "urandom": (0o666, stat.S_IFCHR, 1, 9),
    "tty": (0o666, stat.S_IFCHR, 5, 0),
    "net/tun": (0o666, stat.S_IFCHR, 10, 200),
    "fuse": (0o666, stat.S_IFCHR, 10, 229),
    "loop-control": (0o660, stat.S_IFCHR, 10, 237),
    **{f"loop{number}": (0o660, stat.S_IFBLK, 7, number) for number in range(128)},
}


def _mount(
    source: str, target: Path | str, kind: str = "", flags: int = 0, options: str = ""
) -> None:
    done = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode(), flags, options.encode() or None
    )
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(
            number, f"mount {source} ({kind} {options}): {os.strerror(number)}", str(target)
        )


def _tmpfs(target: Path, options: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", target, "tmpfs", _MS_NOSUID, options)


def _bind(source: Path | str, target: Path) -> None:
    if not target.exists():
        if Path(source).is_dir():
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
    _mount(str(source), target, flags=_MS_BIND | _MS_REC)


def _mount_root(directory: Path, layers: list[str]) -> Path:
    """The root: the host's disk over the tree that hosts share; /var/lib is all on the disk.

    An overlay can't be the upper layer of another, and hosts make overlays in /var/lib.
    """
    disk, root = directory / "disk", directory / "root"
    disk.mkdir(exist_ok=True)
    root.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-o", "loop,noinit_itable", str(directory / "disk.img"), str(disk)], check=True
    )
    lower = ":".join(layers)
    options = f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work,xino=off"
    _mount("overlay", root, "overlay", options=options)
    _mount(f"{disk}/lib", root / "var/lib", flags=_MS_BIND)
    return root


def _make_devices(dev: Path) -> None:
    """No /dev/kvm: where it can't be used, libvirt tries it again at each call."""
    _tmpfs(dev, "mode=755")
    for name in ("pts", "shm", "net"):
        (dev / name).mkdir()
    os.umask(0)
    for name, (mode, kind, major, minor) in _DEVICES.items():
        os.mknod(dev / name, kind | mode, os.makedev(major, minor))
    os.umask(0o022)
    _mount("devpts", dev / "pts", "devpts", _MS_NOSUID | _MS_NOEXEC,
           "newinstance,ptmxmode=666,mode=620,gid=5")  # fmt: skip
    _tmpfs(dev / "shm", "mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1",
             "stderr": "fd/2"}  # fmt: skip
    for name, target in links.items():
        (dev / name).symlink_to(target)


def _mount_control_groups(sys_directory: Path, hierarchies: list[list[str]]) -> None:
    base = sys_directory / "fs/cgroup"
    if [kind for _, kind, _ in hierarchies] == ["cgroup2"]:
        _mount("cgroup2", base, "cgroup2")
        scope = base / "init.scope"
        scope.mkdir(exist_ok=True)
        (scope / "cgroup.procs").write_text("0")
        return
    _tmpfs(base, "mode=755")
    for target, kind, options in hierarchies:
        own = base / Path(target).name
        own.mkdir()
        _mount("cgroup", own, kind, options=options)


def _mount_kernel_views(root: Path, directory: Path, configuration: dict[str, Any]) -> None:
    # Twice: the kernel lets user namespaces mount these only where one is seen that has nothing
    # mounted over a file of it, as the next lines do. LXC keeps such a pair in the same way.
    for base in (root, root / "dev/.virtmgr-lab"):
        for name, kind in (("proc", "proc"), ("sys", "sysfs")):
            (base / name).mkdir(parents=True, exist_ok=True)
            _mount(kind, base / name, kind, _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount_control_groups(root / "sys", configuration["hierarchies"])
    # Each power-on is a boot of its own, and each host a machine of its own.
    boot_id = directory / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    _bind(boot_id, root / "proc/sys/kernel/random/boot_id")
    product = root / "sys/class/dmi/id/product_uuid"
    if product.exists():
        own = directory / "product_uuid"
        own.write_text(f"{uuid.UUID(configuration['machine_id'])}\n")
        _bind(own, product)


def _install(root: Path, configuration: dict[str, Any]) -> None:
    """At the first power-on: what makes this host another than the rest."""
    users = {
        name: (int(user), int(group))
        for name, _, user, group, *_ in (
            line.split(":") for line in (root / "etc/passwd").read_text().splitlines()
        )
    }
    for path, file in configuration["files"].items():
        target = root / path.lstrip("/")
        owner = users[file["owner"]]
        if not target.parent.exists():
            target.parent.mkdir(parents=True)
            os.chown(target.parent, *owner)
        target.unlink(missing_ok=True)
        target.touch(mode=0o600)
        target.write_text(file["content"])
        os.chown(target, *owner)
        target.chmod(file["mode"])
    subprocess.run(
        ["chroot", str(root), "chpasswd"], input=configuration["passwords"].encode(), check=True
    )


def _enter(root: Path) -> None:
    os.chdir(root)
    if _libc.pivot_root(b".", b".") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root", str(root))
    # The old root is now on top of the new one, here.
    if _libc.umount2(b".", _MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), "umount2 of the machine's root")
    os.chdir("/")


def main(configuration_file: str) -> None:
    print(Path("/proc/self").readlink(), flush=True)  # /proc is still the machine's
    if sys.stdin.readline() != "go\n":
        raise SystemExit("nobody gave this host a network")
    configuration = json.loads(Path(configuration_file).read_text())
    directory = Path(configuration_file).parent
    os.umask(0o022)
    socket.sethostname(configuration["name"])
    root = _mount_root(directory, configuration["layers"])
    _make_devices(root / "dev")
    _tmpfs(root / "run", "mode=755")
    (root / "run/lock").mkdir(mode=0o1777)
    _tmpfs(root / "tmp", "mode=1777")
    _mount_kernel_views(root, directory, configuration)
    installed = directory / "installed"
    if not installed.exists():
        _install(root, configuration)
        installed.touch()
    # not through a link that the host has put there, which would lead to a file of the machine
    (root / "etc/hosts").unlink(missing_ok=True)
    (root / "etc/hosts").write_text(configuration["hosts"])
    _bind(configuration["shared"], root / "srv/shared")
    for path in configuration["binds"]:
        target = root / path.lstrip("/")
        _bind(path, target)
        _mount("", target, flags=_MS_BIND | _MS_REMOUNT | _MS_RDONLY)
    shutil.copy(Path(__file__).with_name("init.py"), root / "run/virtmgr-lab-init.py")
    _enter(root)
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
    }
    python = "/usr/bin/python3"
    os.execve(python, [python, "-I", "-S", "/run/virtmgr-lab-init.py"], environment)


if __name__ == "__main__":
    main(sys.argv[1])
