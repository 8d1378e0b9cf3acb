"""Id-mapped mounts: files of ids 0…65535 seen as ids of a container's own range."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from virtmgr.drivers.oci import syscalls

ID_COUNT = 65536

_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP})


def is_unsupported(error: OSError) -> bool:
    """Whether the kernel or the file system cannot map ids (Linux ≥ 5.12 on ext4)."""
    return error.errno in _UNSUPPORTED


def bind_mapped(source: Path, target: Path, userns: int, attributes: int = 0) -> None:
    """Mount a copy of the tree at ``source`` at ``target``, ids mapped by ``userns``."""
    tree = syscalls.open_tree(str(source))
    try:
        flags = attributes | syscalls.MOUNT_ATTR_IDMAP
        syscalls.mount_setattr(tree, flags, userns_fd=userns)
        syscalls.move_mount(tree, str(target))
    finally:
        os.close(tree)


def is_supported(directory: Path) -> bool:
    """Whether trees on the file system of ``directory`` can be mounted with mapped ids."""
    tree = syscalls.open_tree(str(directory))
    try:
        with syscalls.user_namespace(100000, ID_COUNT) as userns:
            syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_IDMAP, userns_fd=userns)
    except OSError as error:
        if is_unsupported(error):
            return False
        raise
    finally:
        os.close(tree)
    return True
