"""Mounts volumes in, and out of, the mount namespace of a container that runs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.oci import guest, syscalls


def attach(pid: int, source: Path, path: str, owner: int) -> None:
    """Mount a copy of the mount at ``source`` at ``path`` inside the container.

    :raises DriverError: ``path`` cannot be a mount point in the container.
    """
    device = source.stat().st_dev
    tree = syscalls.open_tree(str(source))
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def enter_and_mount() -> None:
        syscalls.setns(namespace, syscalls.CLONE_NEWNS)
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            target = guest.make_directories(root, path, owner)
            try:
                if os.fstat(target).st_dev != device:  # not from an earlier attempt
                    syscalls.move_mount(tree, target)
            finally:
                os.close(target)
        finally:
            os.close(root)

    try:
        syscalls.in_own_thread(enter_and_mount)
    except OSError as error:
        raise DriverError(
            f"cannot mount a volume at {path} in the container: {error.strerror}",
            hint="choose a path whose parents are directories",
        ) from error
    finally:
        os.close(namespace)
        os.close(tree)


def detach(pid: int, source: Path, path: str) -> None:
    """Unmount the volume that is mounted at ``source`` on the host from ``path`` inside.

    No error if it is not mounted there any more.

    :raises DriverError: files on it are open.
    """
    device = source.stat().st_dev
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def enter_and_unmount() -> None:
        syscalls.setns(namespace, syscalls.CLONE_NEWNS)
        directory, name = os.path.split(path.rstrip("/"))
        root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            parent = syscalls.open_in_root(root, directory, os.O_RDONLY | os.O_DIRECTORY)
        finally:
            os.close(root)
        try:
            os.fchdir(parent)  # of this thread alone; the parent does not keep the mount busy
        finally:
            os.close(parent)
        if os.lstat(name).st_dev == device:
            syscalls.umount(name, syscalls.UMOUNT_NOFOLLOW)

    try:
        syscalls.in_own_thread(enter_and_unmount)
    except FileNotFoundError:
        return
    except OSError as error:
        hint = None
        if error.errno == errno.EBUSY:
            hint = "end the processes that use it, or stop the workload first"
        raise DriverError(
            f"cannot unmount the volume at {path} in the container: {error.strerror}",
            code="volume_busy" if error.errno == errno.EBUSY else None,
            hint=hint,
        ) from error
    finally:
        os.close(namespace)
