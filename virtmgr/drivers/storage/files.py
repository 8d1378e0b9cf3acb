"""Making files and trees durable, and turning the disk's errors into virtmgr's."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtmgr.domain.errors import StorageError

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def disk_errors(attempt: str) -> Iterator[None]:
    """Raise OSErrors of the body as StorageError; ``attempt`` says what was tried, on what."""
    try:
        yield
    except OSError as error:
        raise storage_error(attempt, error) from error


def storage_error(attempt: str, error: OSError) -> StorageError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageError(
        f"cannot {attempt}: {error.strerror or error}",
        code="disk_full" if full else None,
        hint="Free space on the host's pool, or remove images and volumes that are not needed."
        if full
        else "Look at the host's disk and its kernel log.",
    )


def sync_file_system(directory: Path) -> None:
    """Write everything that is pending on the file system of ``directory`` (syncfs(2))."""
    with open_directory(directory) as descriptor:
        if _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(directory))


def sync_directory(directory: Path) -> None:
    """Make renames in ``directory`` durable."""
    with open_directory(directory) as descriptor:
        os.fsync(descriptor)


@contextmanager
def open_directory(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it; no error if it is gone."""
    if path.exists():
        shutil.rmtree(path)


def disk_usage(path: Path) -> int:
    """Bytes on disk of a file, or of a tree with each inode counted once."""
    if not path.is_dir():
        return path.stat().st_blocks * 512
    seen: dict[int, int] = {}
    for parent, directories, files in os.walk(path):
        for name in (*directories, *files):
            status = os.lstat(os.path.join(parent, name))  # noqa: PTH118
            seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values())
