"""The process that unpacks one layer: it locks itself into the target directory, then extracts.

``python -m virtmgr.drivers.storage.unpacker DIRECTORY UNCOMPRESSED_LIMIT < layer.tar``. Its
last line on standard output is JSON: ``{"members": n}``, or ``{"error": …, "code": …, "hint": …}``.
Whiteouts become what overlayfs understands (Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import encodings.idna
import errno
import json
import os
import resource
import stat
import sys
from collections.abc import Iterator

from virtmgr.domain.errors import ImageError
from virtmgr.domain.layer import Action, LayerLimits, LayerRules, Step
from virtmgr.domain.tar import Member, MemberType, TarReader

_MEMORY = 2 * 1024**3  # address space; a layer of two million members needs about 1 GiB
_PIECE = 1024**2
_BLOCK = 4096
_NO_ATTRIBUTE = (errno.EOPNOTSUPP, errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EINVAL)
_ZEROS = bytes(_PIECE)

assert encodings.idna  # loaded before chroot, after which no module can be found


def main(arguments: list[str]) -> int:
    directory, size = arguments
    limits = LayerLimits(size=int(size))
    try:
        _confine(directory, limits.size)
        report: dict[str, object] = {"members": _extract(limits)}
    except ImageError as error:
        report = {"error": error.message, "code": error.code, "hint": error.hint}
    except MemoryError:
        report = {"error": "the layer needs too much memory to unpack", "code": "image_refused"}
    except OSError as error:
        report = {"error": str(error), "code": "storage_error", "errno": error.errno}
    print(json.dumps(report), flush=True)
    return 0 if "members" in report else 1


def _confine(directory: str, largest_file: int) -> None:
    """From here on nothing outside of ``directory`` can be named."""
    os.chroot(directory)
    os.chdir("/")
    os.umask(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _input() -> Iterator[bytes]:
    while chunk := os.read(0, _PIECE):
        yield chunk


def _extract(limits: LayerLimits) -> int:
    rules = LayerRules(limits)
    reader = TarReader(_input())
    directory_times: dict[str, int] = {}
    count = 0
    for member, content in reader:
        _apply(rules.admit(member), member, content, directory_times)
        count += 1
    for path, mtime in directory_times.items():
        os.utime(_at(path), (mtime, mtime))
    reader.drain()
    return count


def _at(path: str) -> str:
    return f"/{path}"


def _apply(
    step: Step, member: Member, content: Iterator[bytes], directory_times: dict[str, int]
) -> None:
    _make_parents(step.path)
    if step.action is Action.SKIP:
        return
    if step.action is Action.OPAQUE:
        _make_opaque(step.path)
    elif step.action is Action.WHITEOUT:
        os.mknod(_at(step.path), stat.S_IFCHR, os.makedev(0, 0))
    else:
        if step.replaces:
            os.unlink(_at(step.path))  # noqa: PTH108
        _create(step, member, content)
        if step.hides:
            _make_opaque(step.path)
        if member.type is MemberType.DIRECTORY:
            directory_times[step.path] = member.mtime


def _make_parents(path: str) -> None:
    parent = path.rpartition("/")[0]
    if not os.path.lexists(_at(parent)):
        os.makedirs(_at(parent), 0o755)  # noqa: PTH103


def _make_opaque(path: str) -> None:
    os.makedirs(_at(path), 0o755, exist_ok=True)  # noqa: PTH103
    os.setxattr(_at(path), "trusted.overlay.opaque", b"y", follow_symlinks=False)


def _create(step: Step, member: Member, content: Iterator[bytes]) -> None:
    path = _at(step.path)
    match member.type:
        case MemberType.FILE:
            _write_file(path, member, content)
        case MemberType.HARD_LINK:
            os.link(_at(step.target), path, follow_symlinks=False)
        case MemberType.SYMLINK:
            os.symlink(step.target, path)  # noqa: PTH211
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
        case MemberType.DIRECTORY:
            os.makedirs(path, exist_ok=True)  # noqa: PTH103
            _set_attributes(path, member)
            os.chown(path, member.uid, member.gid)
            os.chmod(path, member.mode)  # noqa: PTH101
        case MemberType.FIFO:
            os.mkfifo(path)
            os.chown(path, member.uid, member.gid)
            os.chmod(path, member.mode)  # noqa: PTH101
        case _:
            raise AssertionError(f"{member.type} was admitted")


def _write_file(path: str, member: Member, content: Iterator[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        for piece in content:
            if len(piece) >= _BLOCK and piece == _ZEROS[: len(piece)]:
                os.lseek(descriptor, len(piece), os.SEEK_CUR)  # zeros become a hole
            else:
                _write_all(descriptor, piece)
        os.ftruncate(descriptor, member.size)
        _set_attributes(descriptor, member)
        os.fchown(descriptor, member.uid, member.gid)
        os.fchmod(descriptor, member.mode)
        os.utime(descriptor, (member.mtime, member.mtime))
    finally:
        os.close(descriptor)


def _set_attributes(path: str | int, member: Member) -> None:
    """Those that the pool's file system cannot hold, or finds too large, are left out."""
    for name, value in member.xattrs:
        try:
            os.setxattr(path, name, value)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTE:
                raise


def _write_all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
