"""What a container has changed, as a layer of an OCI image (image-spec layer.md).

Read from overlayfs' upper directory (Documentation/filesystems/overlayfs.rst): its whiteouts and
opaque directories become the image's. What there is only the mark of a change (a directory that
was renamed, an inode whose data stays below) is read from the mounted root instead. Owners are
those that the container sees. Left out are devices, sockets, and what hosts would not unpack:
access lists, and extended attributes but for users' own.
"""

from __future__ import annotations

import os
import stat
import tarfile
import time
from collections.abc import Iterator

from backports import zstd

from virtmgr.domain.errors import DriverError
from virtmgr.domain.layer import OPAQUE, WHITEOUT, LayerLimits
from virtmgr.domain.tar import BLOCK, XATTR
from virtmgr.drivers import sparse
from virtmgr.drivers.oci import syscalls
from virtmgr.drivers.oci.files import inside

_PIECE = 1024**2
_ZEROS = bytes(_PIECE)
_LEVEL = 3
_SIGN_OF_LIFE = 1.0  # seconds
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def layer(upper: int, root: int, id_base: int) -> Iterator[bytes]:
    """The layer, compressed by zstd; ``b""`` now and then while nothing comes.

    :param upper: a descriptor of the upper directory; the container is at rest.
    :param root: one of its mounted root.
    :raises DriverError: it has what no layer can hold, or changes meanwhile.
    """
    compressor = zstd.ZstdCompressor(level=_LEVEL)
    said = time.monotonic()
    for piece in _Layer(root, id_base).tar(upper):
        compressed = compressor.compress(piece)
        if compressed or time.monotonic() - said > _SIGN_OF_LIFE:
            said = time.monotonic()
            yield compressed
    yield compressor.flush()


class _Layer:
    def __init__(self, root: int, id_base: int) -> None:
        self._root = root
        self._id_base = id_base
        self._depth = LayerLimits().depth
        self._names: dict[tuple[int, int], str] = {}  # of files with several, by inode

    def tar(self, upper: int) -> Iterator[bytes]:
        yield from self._entries(upper, "", merged=False)
        yield bytes(2 * BLOCK)

    def _entries(self, directory: int, path: str, *, merged: bool) -> Iterator[bytes]:
        """:param merged: ``directory`` is one of the mounted root, which has no marks."""
        for name in sorted(os.listdir(directory)):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not merged and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                yield _empty(_join(path, WHITEOUT + name))
            else:
                yield from self._entry(directory, name, status, _join(path, name), merged=merged)

    def _entry(
        self, directory: int, name: str, status: os.stat_result, path: str, *, merged: bool
    ) -> Iterator[bytes]:
        if name.startswith(WHITEOUT):
            raise _unfit(path, f"names that begin with {WHITEOUT} mean something else in images")
        member = self._member(path, status)
        if stat.S_ISDIR(status.st_mode):
            member.type = tarfile.DIRTYPE
            yield from self._subdirectory(directory, name, member, merged=merged)
        elif stat.S_ISLNK(status.st_mode):
            member.type, member.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=directory)
            yield _header(member)
        elif stat.S_ISFIFO(status.st_mode):
            member.type = tarfile.FIFOTYPE
            yield _header(member)
        elif stat.S_ISREG(status.st_mode):
            yield from self._file(directory, name, member, merged=merged)

    def _member(self, path: str, status: os.stat_result) -> tarfile.TarInfo:
        member = tarfile.TarInfo(path)
        member.mode = stat.S_IMODE(status.st_mode)
        member.uid, member.gid = (
            inside(owner, self._id_base) for owner in (status.st_uid, status.st_gid)
        )
        member.mtime = max(0, int(status.st_mtime))
        return member

    def _subdirectory(
        self, directory: int, name: str, member: tarfile.TarInfo, *, merged: bool
    ) -> Iterator[bytes]:
        path = member.name
        if path.count("/") + 1 >= self._depth:
            raise _unfit(path, f"an image has at most {self._depth} directories in each other")
        handle = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            member.pax_headers = _attributes(handle)
            yield _header(member)
            renamed = not merged and _mark(handle, "redirect") is not None
            if renamed or (not merged and _mark(handle, "opaque") == b"y"):
                yield _empty(_join(path, OPAQUE))
            if not renamed:
                yield from self._entries(handle, path, merged=merged)
                return
        finally:
            os.close(handle)
        handle = syscalls.open_in_root(self._root, path, _DIRECTORY)
        try:
            yield from self._entries(handle, path, merged=True)
        finally:
            os.close(handle)

    def _file(
        self, directory: int, name: str, member: tarfile.TarInfo, *, merged: bool
    ) -> Iterator[bytes]:
        handle = os.open(name, _FILE, dir_fd=directory)
        try:
            status = os.fstat(handle)
            inode = status.st_dev, status.st_ino
            if status.st_nlink > 1 and inode in self._names:
                member.type, member.linkname = tarfile.LNKTYPE, self._names[inode]
                yield _header(member)
                return
            self._names[inode] = member.name
            if not merged and _mark(handle, "metacopy") is not None:
                whole = syscalls.open_in_root(self._root, member.name, _FILE)
                os.close(handle)
                handle = whole
            member.size = os.fstat(handle).st_size
            member.pax_headers = _attributes(handle)
            yield _header(member)
            yield from _content(handle, member)
        finally:
            os.close(handle)


def _content(handle: int, member: tarfile.TarInfo) -> Iterator[bytes]:
    """The bytes of a file, its holes as zeros, filled up to whole blocks."""
    position = 0
    for start, end in sparse.extents(handle):
        yield from _zeros(start - position)
        position = start
        while position < min(end, member.size):
            piece = os.pread(handle, min(_PIECE, end - position, member.size - position), position)
            if not piece:
                raise _unfit(member.name, "it was cut off while it was read")
            yield piece
            position += len(piece)
    yield from _zeros(member.size - position)
    yield bytes(-member.size % BLOCK)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[:count]
        count -= _PIECE


def _empty(path: str) -> bytes:
    return _header(tarfile.TarInfo(path))


def _header(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _attributes(handle: int) -> dict[str, str]:
    """Users' extended attributes, as extended headers."""
    return {
        XATTR + name: os.getxattr(handle, name).decode("utf-8", "surrogateescape")
        for name in os.listxattr(handle)
        if name.startswith("user.") and "=" not in name
    }


def _mark(handle: int, name: str) -> bytes | None:
    try:
        return os.getxattr(handle, f"trusted.overlay.{name}")
    except OSError:  # it has none
        return None


def _unfit(path: str, why: str) -> DriverError:
    return DriverError(
        f"cannot put {path[:200]!r} into an image: {why}",
        code="not_for_an_image",
        hint="remove or rename it in the workload, and publish it again",
    )
