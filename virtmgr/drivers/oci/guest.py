"""What the driver writes for, and reads from, the userland inside a container."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import signal
from pathlib import Path

from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.workload import Init
from virtmgr.drivers.oci import mounts, syscalls

_SIGRTMIN = int(signal.SIGRTMIN)
_BIND_FILES_SIZE = "256k"
_SEED = "/var/lib/cloud/seed/nocloud"


def files(workload: DesiredWorkload) -> dict[str, str]:
    """Contents of hostname, hosts and resolv.conf."""
    hosts = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    servers: list[str] = []
    domains: list[str] = []
    named = False
    for nic in workload.nics:
        servers += [server for server in nic.dns if server not in servers]
        if nic.dns_domain and nic.dns_domain not in domains:
            domains.append(nic.dns_domain)
        full = f"{workload.name}.{nic.dns_domain} " if nic.dns_domain else ""
        for address in (nic.ipv4, nic.ipv6):
            if address:
                hosts.append(f"{ipaddress.ip_interface(address).ip}\t{full}{workload.name}")
                named = True
    if not named:
        hosts.append(f"127.0.1.1\t{workload.name}")
    lines = [f"search {' '.join(domains)}"] if domains else []
    lines += [f"nameserver {server}" for server in servers]
    return {
        "hostname": workload.name + "\n",
        "hosts": "\n".join(hosts) + "\n",
        "resolv.conf": "".join(line + "\n" for line in lines),
    }


def cloud_init_seed(workload: DesiredWorkload) -> dict[str, str]:
    """A NoCloud seed (cloud-init's documentation, "NoCloud"); the network is set from outside."""
    metadata = {"instance-id": workload.id, "local-hostname": workload.name}
    return {
        "meta-data": json.dumps(metadata) + "\n",
        "user-data": workload.spec.user_data or "#cloud-config\n",
        "network-config": json.dumps({"version": 1, "config": "disabled"}) + "\n",
    }


def mount_bind_files(directory: Path) -> None:
    """Mount a small file system of its own for them at ``directory``, if none is there yet.

    The container may write to these files: on a file system of the host it could fill that.
    """
    if mounts.is_mounted(directory):
        return
    directory.mkdir(mode=0o755, exist_ok=True)
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
    options: dict[str, str | None] = {"size": _BIND_FILES_SIZE, "nr_inodes": "8", "mode": "755"}
    mount = syscalls.new_mount("tmpfs", options, attributes)
    try:
        syscalls.move_mount(mount, str(directory))
    finally:
        os.close(mount)


def write_bind_files(workload: DesiredWorkload, directory: Path, owner: int) -> None:
    """Files that are mounted over those of an app container's /etc."""
    directory.mkdir(mode=0o755, exist_ok=True)
    for name, content in files(workload).items():
        path = directory / name
        path.write_text(content)
        path.chmod(0o644)
        os.chown(path, owner, owner)


def write_into_root(workload: DesiredWorkload, root: int, owner: int) -> None:
    """Files in a system container's own root: its own tools may change them afterwards."""
    for name, content in files(workload).items():
        if content:
            _write(root, f"/etc/{name}", content, owner)
    if workload.spec.user_data is not None:
        for name, content in cloud_init_seed(workload).items():
            _write(root, f"{_SEED}/{name}", content, owner)


def _write(root: int, path: str, content: str, owner: int) -> None:
    """Write a file inside ``root``. A link in its place is replaced, not followed."""
    directory, name = os.path.split(path)
    parent = make_directories(root, directory, owner)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, flags, 0o644, dir_fd=parent)
        with os.fdopen(file, "w") as stream:
            stream.write(content)
            os.fchmod(file, 0o644)
            os.fchown(file, owner, owner)
    finally:
        os.close(parent)


def make_directories(root: int, path: str, owner: int) -> int:
    """A descriptor of the directory ``path`` inside ``root``, made where it is missing."""
    current = syscalls.open_in_root(root, "/", os.O_RDONLY | os.O_DIRECTORY)
    done = ""
    for part in (part for part in path.split("/") if part):
        done += "/" + part
        try:
            following = syscalls.open_in_root(root, done, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=current)
            os.chown(part, owner, owner, dir_fd=current, follow_symlinks=False)
            following = syscalls.open_in_root(root, done, os.O_RDONLY | os.O_DIRECTORY)
        finally:
            os.close(current)
        current = following
    return current


def stop_signal(workload: DesiredWorkload, root: int, command: tuple[str, ...]) -> int:
    """The signal that asks the container to end.

    App: the image's. System: the image's if it names one of its own, else what its init
    understands as "power off": systemd SIGRTMIN+3, busybox SIGUSR2, others SIGPWR.
    """
    config = None if workload.image is None else workload.image.manifest.config
    named = parse_signal(config.stop_signal) if config is not None else signal.SIGTERM
    if workload.init is Init.APP or named != signal.SIGTERM:
        return named
    init = init_name(root, command[0])
    if init == "systemd":
        return _SIGRTMIN + 3
    return signal.SIGUSR2 if init == "busybox" else signal.SIGPWR


def init_name(root: int, path: str) -> str:
    """The name of the binary behind an init's links: ``systemd``, ``busybox``, …; "" if none."""
    try:
        file = syscalls.open_in_root(root, path, os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return ""
        raise
    try:
        return Path(f"/proc/self/fd/{file}").readlink().name
    finally:
        os.close(file)


def parse_signal(text: str) -> int:
    """The number of a signal: ``SIGTERM``, ``TERM``, ``15``, ``SIGRTMIN+3``; SIGTERM if unknown."""
    if text.isdecimal():
        return int(text)
    name, _, offset = text.upper().removeprefix("SIG").partition("+")
    number = getattr(signal, f"SIG{name}", signal.SIGTERM)
    return int(number) + (int(offset) if offset.isdecimal() else 0)
