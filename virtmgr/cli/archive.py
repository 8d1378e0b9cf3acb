"""Tar streams to and from the local file system; what comes in is not trusted."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from virtmgr.domain.errors import InvalidRequest

_CHUNK = 256 * 1024


def pack(source: Path, name: str) -> Iterator[bytes]:
    """A tar (PAX) of ``source``, under the name ``name``, bit by bit."""
    root = source.resolve(strict=True)
    seen: dict[tuple[int, int], str] = {}
    for path, inside in _walk(root, PurePosixPath(name)):
        info = _tar_info(path, str(inside), seen)
        if info is None:
            continue
        yield info.tobuf(tarfile.PAX_FORMAT)
        if info.isreg() and info.size:
            yield from _content(path, info.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _walk(path: Path, inside: PurePosixPath) -> Iterator[tuple[Path, PurePosixPath]]:
    yield path, inside
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            yield from _walk(child, inside / child.name)


def _tar_info(path: Path, name: str, seen: dict[tuple[int, int], str]) -> tarfile.TarInfo | None:
    """The header for a file, directory, link; None for sockets and devices, which do not travel."""
    found = path.lstat()
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(found.st_mode)
    info.mtime = int(found.st_mtime)
    if stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)  # noqa: PTH115
    elif stat.S_ISREG(found.st_mode):
        first = seen.setdefault((found.st_dev, found.st_ino), name)
        if first != name:
            info.type, info.linkname = tarfile.LNKTYPE, first
        else:
            info.size = found.st_size
    else:
        return None
    return info


def _content(path: Path, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes of a file and the padding, whatever happens to it meanwhile."""
    left = size
    with path.open("rb") as file:
        while left and (data := file.read(min(_CHUNK, left))):
            left -= len(data)
            yield data
    yield bytes(left + -size % tarfile.BLOCKSIZE)


def unpack(chunks: Iterable[bytes], target: Path) -> int:
    """Unpack a tar with one entry at its top to ``target``; the number of entries.

    An existing directory ``target`` receives the entry under its own name, otherwise ``target``
    is its new name. Nothing is ever written outside of that: paths and links that lead out,
    and writing through links, are refused; devices and owners are not taken over.

    :raises InvalidRequest: the archive is refused.
    """
    into = target.is_dir()
    root = target if into else target.parent
    if not root.is_dir():
        raise InvalidRequest(f"{root} is no directory", hint="make it first")
    count = 0
    reader = cast("IO[bytes]", _Reader(chunks))
    try:
        with tarfile.open(fileobj=reader, mode="r|") as tar:
            top: str | None = None
            for member in tar:
                parts = _safe_parts(member.name)
                if not parts:
                    continue
                top = top or parts[0]
                if parts[0] != top:
                    raise InvalidRequest(f"the archive has more at its top than {top!r}")
                _place(tar, member, root, _renamed(parts, target, into=into), top, target, into)
                count += 1
    except tarfile.TarError as error:
        raise InvalidRequest(f"what the server sent is no tar archive: {error}") from error
    return count


def _renamed(parts: tuple[str, ...], target: Path, *, into: bool) -> tuple[str, ...]:
    return parts if into else (target.name, *parts[1:])


def _safe_parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InvalidRequest(f"the archive holds {name!r}, which leads out of the target; refused")
    return path.parts


def _place(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    root: Path,
    parts: tuple[str, ...],
    top: str,
    target: Path,
    into: bool,
) -> None:
    path = _path_without_links(root, parts)
    if member.isdir():
        path.mkdir(exist_ok=True)
        path.chmod((member.mode & 0o777) | 0o700)
    elif member.issym():
        _check_link(member, len(parts))
        _clear(path)
        path.symlink_to(member.linkname)
    elif member.islnk():
        linked = _safe_parts(member.linkname)
        if linked[:1] != (top,):
            raise InvalidRequest(f"the link {member.name!r} leads out of the target; refused")
        source = _path_without_links(root, _renamed(linked, target, into=into))
        if source.is_symlink():
            raise InvalidRequest(f"the hard link {member.name!r} is to a link; refused")
        _clear(path)
        path.hardlink_to(source)
    elif member.isreg():
        _clear(path)
        _write(tar, member, path)


def _path_without_links(root: Path, parts: tuple[str, ...]) -> Path:
    """``root`` and ``parts``, none of whose inner directories is a symbolic link."""
    path = root
    for part in parts[:-1]:
        path = path / part
        if path.is_symlink():
            raise InvalidRequest(f"the archive would be written through the link {path}; refused")
        path.mkdir(exist_ok=True)
    return path / parts[-1]


def _check_link(member: tarfile.TarInfo, depth: int) -> None:
    """Refuse a symbolic link that is absolute, or climbs above the archive's top."""
    level = depth - 1
    for part in PurePosixPath(member.linkname).parts:
        level += -1 if part == ".." else part != "."
        if part == "/" or level < 0:
            raise InvalidRequest(
                f"the link {member.name!r} → {member.linkname!r} leads out of the target; refused",
                hint="'virtmgr cp WORKLOAD:PATH - > FILE.tar' keeps the archive as it is",
            )


def _clear(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise tarfile.ReadError(f"{member.name!r} has no content")
    with path.open("xb") as file:
        while data := source.read(_CHUNK):
            file.write(data)
    path.chmod(member.mode & 0o777)


class _Reader:
    """An iterable of bytes as what tarfile's stream mode reads from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = bytearray()

    def read(self, count: int) -> bytes:
        while len(self._rest) < count and (data := next(self._chunks, b"")):
            self._rest += data
        taken = bytes(self._rest[:count])
        del self._rest[:count]
        return taken
