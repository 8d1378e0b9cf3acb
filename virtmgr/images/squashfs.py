"""A squashfs file as a tar, so that what it holds passes the rules of layers like all else."""

from __future__ import annotations

import struct
from pathlib import Path

from virtmgr.domain.errors import ImageError
from virtmgr.images.limits import ImportLimits
from virtmgr.images.probe import read_head
from virtmgr.images.task import Task, ToolLimits


def convert_to_tar(path: Path, target: Path, *, limits: ImportLimits, task: Task) -> None:
    """Write the tar of squashfs ``path`` to the new file ``target``, by sqfs2tar(1).

    :raises ImageError: it is damaged, or has more than is allowed.
    """
    stored = path.stat().st_size
    _check_size(read_head(path), stored)
    size = limits.archive(stored)
    task.phase("converting the squashfs file")
    task.run(
        ["sqfs2tar", "--no-xattr", "--root-becomes", ".", str(path)],
        limits=ToolLimits(cpu_seconds=3600, file_size=size),
        output=target,
        code="image_refused",
    )


def _check_size(head: bytes, size: int) -> None:
    """The superblock says at offset 40 how many bytes are used (Documentation/filesystems/
    squashfs.rst)."""
    if len(head) < 96 or struct.unpack_from("<Q", head, 40)[0] > size:
        raise ImageError("the squashfs file is truncated", code="image_truncated")
