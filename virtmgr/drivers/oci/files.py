"""Files in and out of a container as tar streams, never outside its root.

Paths are resolved by the kernel with openat2(RESOLVE_IN_ROOT) at the container's own root, so no
link inside leads out. Owners are shifted between the container's ids and the host's.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import BinaryIO

from virtmgr.domain.errors import DriverError, NotFound
from virtmgr.drivers.oci import guest, syscalls
from virtmgr.drivers.oci.idmap import ID_COUNT

_NOBODY = 65534
_CHUNK = 65536


def inside(host_id: int, id_base: int) -> int:
    """An owner as the container sees it."""
    return host_id - id_base if id_base <= host_id < id_base + ID_COUNT else _NOBODY


def pull(root: int, path: str, id_base: int) -> Iterator[bytes]:
    """A tar of ``path`` inside ``root``, named by its last component. Closes ``root``.

    :raises NotFound: there is no such path.
    """
    try:
        parent, name, top = _open_top(root, path)
    except OSError as error:
        os.close(root)
        raise NotFound(f"cannot read {path} in the container: {error.strerror}") from error
    return _stream(root, parent, name, top, id_base)


def _open_top(root: int, path: str) -> tuple[int, str, int]:
    """A descriptor of the directory that holds ``path``, its name, and an O_PATH of itself."""
    normal = posixpath.normpath("/" + path)
    directory, name = posixpath.split(normal)
    parent = syscalls.open_in_root(root, directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        top = syscalls.open_in_root(root, normal, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        os.close(parent)
        raise
    return parent, name or "root", top


class _Pipe:
    """The writing end of a bounded queue of bytes, as a file for ``tarfile``."""

    def __init__(self) -> None:
        self.queue: Queue[bytes | None] = Queue(maxsize=16)
        self.abandoned = Event()

    def write(self, data: bytes) -> int:
        self.put(bytes(data))
        return len(data)

    def put(self, data: bytes | None) -> None:
        while not self.abandoned.is_set():
            try:
                self.queue.put(data, timeout=0.5)
            except Full:
                continue
            return
        if data is not None:
            raise BrokenPipeError("nobody reads the tar any more")


def _stream(root: int, parent: int, name: str, top: int, id_base: int) -> Iterator[bytes]:
    pipe = _Pipe()
    failure: list[Exception] = []

    def write() -> None:
        try:
            with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
                _add(tar, top, name, id_base)
        except BrokenPipeError:
            pass  # the reader gave up
        except Exception as error:  # noqa: BLE001 - raised again in the reader
            failure.append(error)
        finally:
            for fd in (top, parent, root):
                os.close(fd)
            pipe.put(None)

    thread = Thread(target=write, name="oci-pull", daemon=True)
    thread.start()
    try:
        while (piece := _next(pipe, thread)) is not None:
            yield piece
    finally:
        pipe.abandoned.set()
        thread.join()
    if failure:
        raise DriverError(f"cannot read {name} in the container: {failure[0]}") from failure[0]


def _next(pipe: _Pipe, thread: Thread) -> bytes | None:
    while True:
        try:
            return pipe.queue.get(timeout=1)
        except Empty:
            if not thread.is_alive():
                return None


def _add(tar: tarfile.TarFile, handle: int, name: str, id_base: int) -> None:
    """Add what the O_PATH descriptor ``handle`` stands for, and what is below it."""
    status = os.fstat(handle)
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(status.st_mode)
    member.uid, member.gid = (inside(found, id_base) for found in (status.st_uid, status.st_gid))
    member.mtime = status.st_mtime
    if stat.S_ISLNK(status.st_mode):
        member.type = tarfile.SYMTYPE
        member.linkname = os.readlink("", dir_fd=handle)
        tar.addfile(member)
    elif stat.S_ISDIR(status.st_mode):
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
        _add_entries(tar, handle, name, id_base)
    elif stat.S_ISREG(status.st_mode):
        # Through /proc, as the descriptor itself cannot be read: the very same file.
        with open(f"/proc/self/fd/{handle}", "rb") as file:
            member.size = os.fstat(file.fileno()).st_size
            tar.addfile(member, file)
    # Sockets, FIFOs and devices have no content to copy.


def _add_entries(tar: tarfile.TarFile, handle: int, name: str, id_base: int) -> None:
    for entry in sorted(path.name for path in Path(f"/proc/self/fd/{handle}").iterdir()):
        try:
            child = os.open(entry, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
        except FileNotFoundError:  # removed while we read
            continue
        try:
            _add(tar, child, f"{name}/{entry}", id_base)
        finally:
            os.close(child)


def push(root: int, path: str, tar: BinaryIO, id_base: int) -> None:
    """Unpack ``tar`` in the directory ``path`` inside ``root``, made if missing. Closes ``root``.

    :raises DriverError: the tar is damaged, or holds a device or a path that leads out.
    """
    try:
        base = os.open(".", os.O_PATH | os.O_CLOEXEC, dir_fd=root)
        try:
            with tarfile.open(fileobj=tar, mode="r|*") as archive:
                for member in archive:
                    _unpack(base, path, archive, member, id_base)
        finally:
            os.close(base)
    except (OSError, tarfile.TarError) as error:
        raise DriverError(f"cannot unpack into {path} in the container: {error}") from error
    finally:
        os.close(root)


def _unpack(
    root: int, path: str, archive: tarfile.TarFile, member: tarfile.TarInfo, id_base: int
) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts or member.name.startswith("/"):
        raise DriverError(f"the tar is refused: its member {member.name!r} leads out of {path}")
    if not parts:
        return
    directory = posixpath.join(path, *parts[:-1])
    parent = guest.make_directories(root, directory, id_base)
    try:
        _place(root, parent, parts[-1], path, archive, member, id_base)
    finally:
        os.close(parent)


def _place(
    root: int,
    parent: int,
    name: str,
    path: str,
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    id_base: int,
) -> None:
    """Make one member in the directory ``parent``, in place of what is there."""
    if member.isdir():
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
    if member.issym():
        os.symlink(member.linkname, name, dir_fd=parent)
    elif member.islnk():
        target = posixpath.join(path, member.linkname)
        source = syscalls.open_in_root(root, target, os.O_PATH | os.O_NOFOLLOW)
        try:
            os.link(f"/proc/self/fd/{source}", name, dst_dir_fd=parent, follow_symlinks=True)
        finally:
            os.close(source)
        return
    elif member.isreg():
        _write_file(parent, name, archive, member)
    elif not member.isdir():
        raise DriverError(f"the tar is refused: its member {member.name!r} is a device or FIFO")
    owner = [found if 0 <= found < ID_COUNT else 0 for found in (member.uid, member.gid)]
    os.chown(name, owner[0] + id_base, owner[1] + id_base, dir_fd=parent, follow_symlinks=False)
    if not member.issym():
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.fchmod(handle, member.mode & 0o7777)
            os.utime(handle, (member.mtime, member.mtime))
        finally:
            os.close(handle)


def _write_file(parent: int, name: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    content = archive.extractfile(member)
    assert content is not None
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
        while piece := content.read(_CHUNK):
            file.write(piece)
