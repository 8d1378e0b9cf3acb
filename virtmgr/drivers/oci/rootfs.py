"""The root of a container: shared image layers below, a private disk of limited size above.

The writable layer lies in an ext4 image of the size that the spec asks for: the limit holds
(ENOSPC inside), usage is one statvfs(2), and a copy of an empty template costs milliseconds.

Layers are owned by ids 0…65535 and mounted with those mapped to the container's own range. Where
the kernel cannot, the ids are shifted once, when the root is first made: overlayfs then copies
inodes, not data (metacopy), into the private disk.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from virtmgr.domain.errors import StorageError
from virtmgr.drivers import sparse
from virtmgr.drivers.oci import filesystem, idmap, loop, mounts, syscalls
from virtmgr.drivers.oci.places import Place
from virtmgr.drivers.storage.arrivals import link
from virtmgr.drivers.storage.files import sync_file_system

_SMALLEST = 16 * 1024**2
_CAPABILITY = "security.capability"
_ACCESS_LISTS = ("system.posix_acl_access", "system.posix_acl_default")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_USER, _ACL_GROUP = 0x02, 0x08
_LET_GO = 5.0  # seconds for the kernel to give a disk back after it was unmounted


class RootFilesystems:
    """Makes and removes roots. ``templates`` holds one empty disk per size."""

    def __init__(self, templates: Path, *, mapped: bool = True) -> None:
        self._templates = templates
        self._mapped = mapped

    def make(self, place: Place, size: int) -> None:
        """Make the private disk of a stopped container; grow it if it is smaller than ``size``."""
        size = max(size, _SMALLEST)
        if not place.disk.exists():
            sparse.copy(self._template(size), place.disk)
        elif place.disk.stat().st_size < size:
            os.truncate(place.disk, size)
        if filesystem.can_grow(place.disk):
            self.unmount(place)
            filesystem.grow(place.disk)

    def grow_live(self, place: Place, size: int) -> bool:
        """Grow the disk of a running container; False: that has to wait until it is stopped."""
        if place.disk.stat().st_size >= size:
            return not filesystem.can_grow(place.disk)
        os.truncate(place.disk, size)
        device = loop.device_of(place.disk)
        if device is None:
            return False
        try:
            loop.grow(device, place.disk_mount, size)
        except PermissionError:
            return False
        return True

    def mount(self, place: Place, layers: Sequence[Path], id_base: int) -> None:
        """Mount disk and root, if they are not mounted yet.

        :raises StorageError: with the mount that failed.
        """
        try:
            self._mount_disk(place, id_base)
            layers = _each_once(layers)
            if not mounts.is_mounted(place.rootfs):
                place.rootfs.mkdir(exist_ok=True)
                self._mount_overlay(place, layers, id_base)
        except OSError as error:
            raise StorageError(
                f"cannot mount the root of workload {place.workload_id} "
                f"({error.filename or place.rootfs}): {error.strerror}",
                hint="the kernel needs overlayfs, ext4 and loop devices; dmesg may say more",
            ) from error

    def unmount(self, place: Place) -> None:
        mounts.unmount(place.rootfs)
        mounts.unmount_below(place.layers)
        mounts.unmount(place.disk_mount)

    def copy(self, source: Place, place: Place, *, id_base: int, new_id_base: int) -> None:
        """Make the private disk a copy of another container's, which has ended; replaces what is
        there. What belonged to ids of the old range belongs to those of the new one.

        :raises StorageError: somebody still reads or writes the source's files.
        """
        self.unmount(place)
        self.release(source)
        sparse.copy(source.disk, place.disk, durable=True)
        self._give_to(place, id_base, new_id_base)

    def take_up(self, file: Path, place: Place, *, id_base: int, new_id_base: int) -> None:
        """Make a disk that came from another host the private disk; replaces what is there.

        :param id_base: of the range that its files belong to, on that host.
        :raises StorageError: that cannot be a range beside the new one.
        """
        apart = abs(id_base - new_id_base) >= idmap.ID_COUNT
        if id_base < 0 or not (apart or id_base == new_id_base):
            raise StorageError(
                f"the disk of workload {place.workload_id} cannot belong to ids from {id_base} on",
                code="arrival_refused",
            )
        self.unmount(place)
        link(file, place.disk)
        self._give_to(place, id_base, new_id_base)

    def release(self, source: Place) -> None:
        """Unmount the root and the disk of a container that has ended; all is in the disk's file.

        :raises StorageError: somebody still reads or writes its files.
        """
        self.unmount(source)
        deadline = time.monotonic() + _LET_GO
        while loop.device_of(source.disk) is not None:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"cannot read the disk of workload {source.workload_id}: its files are in use",
                    code="in_use",
                    hint="wait until copies of files into and out of it have ended",
                )
            time.sleep(0.01)

    def _give_to(self, place: Place, id_base: int, new_id_base: int) -> None:
        """Move what belongs to the old range of ids to the new one."""
        if new_id_base != id_base:
            self._mount_disk(place, new_id_base)
            shift(place.disk_mount, new_id_base, id_base)
            sync_file_system(place.disk_mount)
            self.unmount(place)
        sync_file_system(place.state)

    def _template(self, size: int) -> Path:
        template = self._templates / f"{size}.img"
        if not template.exists():
            self._templates.mkdir(parents=True, exist_ok=True)
            half = self._templates / f"{size}.{os.getpid()}.{syscalls.thread_id()}"
            try:
                with half.open("wb") as file:
                    file.truncate(size)
                filesystem.make_ext4(half)
                half.rename(template)
            finally:
                half.unlink(missing_ok=True)
        return template

    def _mount_disk(self, place: Place, id_base: int) -> None:
        if mounts.is_mounted(place.disk_mount):
            return
        place.disk_mount.mkdir(exist_ok=True)
        with loop.attached(place.disk) as device:
            options = "nodiscard,errors=remount-ro"
            syscalls.mount(device, str(place.disk_mount), "ext4", syscalls.MS_NODEV, options)
        for directory in (place.upper, place.work):
            if not directory.exists():
                directory.mkdir()
                directory.chmod(0o755)  # whatever the umask: it becomes the container's root
                os.chown(directory, id_base, id_base)

    def _mount_overlay(self, place: Place, layers: Sequence[Path], id_base: int) -> None:
        mapped = self._mapped and not place.shifted_mark.exists()
        if mapped:
            try:
                self._overlay_on_mapped(place, layers, id_base)
                return
            except OSError as error:
                if not idmap.is_unsupported(error):
                    raise
        with ExitStack() as undo:
            names = _bind_layers(place, layers, None, undo)
            syscalls.in_own_thread(lambda: _overlay(place, names, "metacopy=on,"))
        if not place.shifted_mark.exists():
            shift(place.rootfs, id_base)
            place.shifted_mark.touch()

    def _overlay_on_mapped(self, place: Place, layers: Sequence[Path], id_base: int) -> None:
        with ExitStack() as undo:
            with syscalls.user_namespace(id_base, idmap.ID_COUNT) as userns:
                names = _bind_layers(place, layers, userns, undo)
            syscalls.in_own_thread(lambda: _overlay(place, names, ""))


def _each_once(layers: Sequence[Path]) -> Sequence[Path]:
    """Without layers that come again higher up: overlayfs refuses one twice, and the higher has all
    that the lower has. Pure."""
    return list(dict.fromkeys(reversed(layers)))[::-1]


def _bind_layers(
    place: Place, layers: Sequence[Path], userns: int | None, undo: ExitStack
) -> list[str]:
    """Mount every layer under a short name; gone at the end of ``undo`` (overlayfs keeps its own).

    :returns: the names below ``place.layers``, highest layer first as overlayfs wants them.
    """
    names = []
    for index, layer in enumerate(layers):
        target = place.layers / str(index)
        target.mkdir(parents=True, exist_ok=True)
        if userns is None:
            syscalls.mount(str(layer), str(target), None, syscalls.MS_BIND)
        else:
            idmap.bind_mapped(layer, target, userns, syscalls.MOUNT_ATTR_RDONLY)
        undo.callback(mounts.unmount, target)
        names.append(target.name)
    return names[::-1]


def _overlay(place: Place, names: Sequence[str], more: str) -> None:
    """Mount the overlay. Relative names, as all options together must fit in one page."""
    os.chdir(place.layers)
    data = f"{more}lowerdir={':'.join(names)},upperdir={place.upper},workdir={place.work}"
    if len(data) > 4000:
        raise StorageError(
            f"cannot mount the root of workload {place.workload_id}: too many layers "
            f"({len(names)})",
            hint="squash the image",
        )
    syscalls.mount("overlay", str(place.rootfs), "overlay", syscalls.MS_NODEV, data)


def shift(root: Path, id_base: int, first: int = 0) -> None:
    """Move every owner in the tree from the range of ids at ``first`` to the one at ``id_base``.

    The ranges must not overlap: what is moved already stays. Modes, file capabilities (which a
    change of owner would drop) and access control lists are kept, and name the new ids.
    """

    def moved(id: int) -> int:
        return id - first + id_base if first <= id < first + idmap.ID_COUNT else id

    for path in _walk(root):
        status = os.lstat(path)
        for name in () if stat.S_ISLNK(status.st_mode) else _ACCESS_LISTS:
            entries = _attribute(path, name)
            if entries is not None:
                os.setxattr(path, name, acl_moved(entries, moved), follow_symlinks=False)
        uid, gid = moved(status.st_uid), moved(status.st_gid)
        if (uid, gid) == (status.st_uid, status.st_gid):
            continue
        regular = stat.S_ISREG(status.st_mode)
        capability = _attribute(path, _CAPABILITY) if regular else None
        os.lchown(path, uid, gid)
        if regular and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            path.chmod(stat.S_IMODE(status.st_mode))
        if capability is not None:
            rooted = capability_moved(capability, first, id_base)
            os.setxattr(path, _CAPABILITY, rooted, follow_symlinks=False)


def _walk(root: Path) -> Iterator[Path]:
    yield root
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            yield Path(directory, name)


def _attribute(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:  # it has none
        return None


def capability_moved(capability: bytes, first: int, id_base: int) -> bytes:
    """A file capability that was valid below the root id ``first``, for ``id_base`` (revision 3
    of ``struct vfs_ns_cap_data`` names its root; revision 2 means root 0). Pure."""
    magic = int.from_bytes(capability[:4], "little")
    revision = magic & 0xFF000000
    root = int.from_bytes(capability[20:24], "little") if revision == 0x03000000 else 0
    if revision not in (0x02000000, 0x03000000) or root != first:
        return capability
    magic = (magic & 0x00FFFFFF) | 0x03000000
    return magic.to_bytes(4, "little") + capability[4:20] + id_base.to_bytes(4, "little")


def acl_moved(entries: bytes, moved: Callable[[int], int]) -> bytes:
    """An access control list with its users and groups moved (acl(5); the kernel's
    ``struct posix_acl_xattr_entry``: tag, permissions, id). Pure."""
    found = bytearray(entries)
    for offset in range(4, len(found), _ACL_ENTRY.size):
        tag, permissions, id = _ACL_ENTRY.unpack_from(found, offset)
        if tag in (_ACL_USER, _ACL_GROUP):
            _ACL_ENTRY.pack_into(found, offset, tag, permissions, moved(id))
    return bytes(found)


def remove_tree(path: Path, patience: float = _LET_GO) -> None:
    """Remove a directory, after what is mounted below it was unmounted; no error if it is gone.

    What a process in another namespace mounts below a shared mount comes to ours, at any time: the
    kernel then refuses (EBUSY) to remove the directory, and it is tried again for ``patience``
    seconds. What is mounted is never reached into.

    :raises StorageError: something stays mounted; the mounts are named.
    """
    deadline = time.monotonic() + patience
    while path.exists():
        mounts.unmount_below(path)
        try:
            shutil.rmtree(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if time.monotonic() > deadline:
                raise _still_mounted(path) from error
            time.sleep(0.02)


def _still_mounted(path: Path) -> StorageError:
    there = [str(mount.target) for mount in mounts.mounts() if mount.target.is_relative_to(path)]
    return StorageError(
        f"cannot remove {path}: something is mounted there "
        f"({', '.join(there) or 'and gone again since'})",
        code="in_use",
        hint="/proc/*/mountinfo says which processes see it; it is tried again",
    )
