"""Volumes in containers: a raw disk file, its file system mounted with mapped ids.

On the disk the ids are those that the container sees (0…65535), so a volume can move to another
container. Nothing is ever formatted that holds anything but zeros.
"""

from __future__ import annotations

import os
from pathlib import Path

from virtmgr.domain.errors import StorageError
from virtmgr.drivers.oci import filesystem, idmap, loop, mounts, syscalls


def mount(disk: Path, target: Path, id_base: int, *, read_only: bool) -> None:
    """Mount a volume at ``target`` on the host, if it is not mounted there yet.

    :raises StorageError: it holds something that is no file system, is in use, or does not mount.
    """
    if mounts.is_mounted(target):
        return
    fs = _file_system(disk)
    used = loop.device_of(disk)
    if used is not None:
        raise StorageError(
            f"cannot mount volume {disk}: {used} already uses it",
            hint="detach it from the other workload",
        )
    if fs == "ext4" and not read_only and filesystem.can_grow(disk):
        filesystem.grow(disk)
    target.mkdir(parents=True, exist_ok=True)
    try:
        with loop.attached(disk, read_only=read_only) as device:
            _mount(device, fs, target, id_base, read_only)
    except OSError as error:
        raise StorageError(
            f"cannot mount volume {disk} ({fs}) at {target}: {error.strerror}",
            hint="dmesg may say more; fsck repairs a damaged file system",
        ) from error


def unmount(target: Path) -> None:
    """Unmount a volume; its loop device frees itself. No error if it is not mounted."""
    mounts.unmount(target)


def _file_system(disk: Path) -> str:
    found = filesystem.type_of(disk)
    if found is not None:
        return found
    if not filesystem.is_blank(disk):
        raise StorageError(
            f"cannot mount volume {disk}: it holds data that is no ext4, xfs or btrfs file system",
            hint="attach it to a VM, or use an empty volume",
        )
    filesystem.make_ext4(disk)
    return "ext4"


def _mount(device: str, fs: str, target: Path, id_base: int, read_only: bool) -> None:
    options: dict[str, str | None] = {"source": device}
    if read_only:
        options["ro"] = None
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
    mount = syscalls.new_mount(fs, options, attributes)
    try:
        try:
            with syscalls.user_namespace(id_base, idmap.ID_COUNT) as userns:
                syscalls.mount_setattr(mount, syscalls.MOUNT_ATTR_IDMAP, userns_fd=userns)
            syscalls.move_mount(mount, str(target))
        except OSError as error:
            if not idmap.is_unsupported(error):
                raise
            # No mapping here: give the container a root directory that it can write to.
            syscalls.move_mount(mount, str(target))
            if not read_only and target.stat().st_uid == 0:
                os.chown(target, id_base, id_base)
    finally:
        os.close(mount)
