"""Mount points: make, find and remove them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from virtmgr.drivers.oci import syscalls

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

    target: Path
    type: str
    source: str
    shared: bool


def parse_mountinfo(text: str) -> Iterator[Mount]:
    """The mounts in ``text``, in the order in which they were made."""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (type_, source, *_rest) = left.split(" "), right.split(" ")
        target = _OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4])
        shared = any(field.startswith("shared:") for field in fields[6:])
        yield Mount(Path(target), type_, source, shared)


def mounts() -> tuple[Mount, ...]:
    """All mounts that this thread sees."""
    return tuple(parse_mountinfo(Path("/proc/thread-self/mountinfo").read_text()))


def is_mounted(path: Path) -> bool:
    """Whether a file system of its own is mounted at ``path``."""
    try:
        return os.lstat(path).st_dev != os.lstat(path.parent).st_dev
    except FileNotFoundError:
        return False


def device_number(path: Path) -> int:
    """The block device that the file system mounted at ``path`` lies on.

    Not what stat(2) says, which some file systems (btrfs) make up.

    :raises FileNotFoundError: nothing is mounted there, or it lies on no device.
    """
    sources = [mount.source for mount in mounts() if mount.target == path]
    if not sources:
        raise FileNotFoundError(errno.ENOENT, "nothing is mounted there", str(path))
    return Path(sources[-1]).stat().st_rdev


def unmount(path: Path) -> None:
    """Unmount what is at ``path``, however often it was mounted over; no error if nothing is.

    Uses of it that are left (an open file) keep the file system alive until they end.
    """
    while True:
        try:
            syscalls.umount(str(path), syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise


def unmount_below(path: Path) -> None:
    """Unmount everything below ``path``, the last made first."""
    for mount in reversed(mounts()):
        if mount.target != path and mount.target.is_relative_to(path):
            unmount(mount.target)


def share(path: Path) -> None:
    """Make ``path`` a shared mount, so that private mount namespaces see mounts come and go."""
    if any(mount.target == path and mount.shared for mount in mounts()):
        return
    syscalls.mount(str(path), str(path), None, syscalls.MS_BIND)
    syscalls.mount("none", str(path), None, syscalls.MS_PRIVATE)
    syscalls.mount("none", str(path), None, syscalls.MS_SHARED)


def unshare(path: Path) -> None:
    """Undo :func:`share`, and unmount what is below."""
    unmount_below(path)
    unmount(path)
