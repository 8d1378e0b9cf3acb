"""Disk files with holes: what is in them, and copies that keep the holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path


def extents(file: int) -> Iterator[tuple[int, int]]:
    """Start and end of every part of an open file that is not a hole."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def copy(source: Path, target: Path, *, durable: bool = False) -> None:
    """Copy a file without filling its holes, appearing under its name only when complete.

    The kernel shares the blocks where the file system can (reflink; copy_file_range(2)).

    :param durable: the copy is on the disk before it appears.
    """
    half = target.with_name(target.name + ".partial")
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(half, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _copy(reader, writer)
            if durable:
                os.fsync(writer)
        finally:
            os.close(writer)
        half.rename(target)
    except OSError:
        half.unlink(missing_ok=True)
        raise
    finally:
        os.close(reader)


def _copy(reader: int, writer: int) -> None:
    os.ftruncate(writer, os.fstat(reader).st_size)
    for start, end in extents(reader):
        while start < end:
            copied = os.copy_file_range(reader, writer, end - start, start, start)
            if copied == 0:  # it was cut off meanwhile
                return
            start += copied
