"""Loop devices: image files as block devices (loop(4))."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtmgr.domain.errors import StorageError

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_SET_CAPACITY = 0x4C07
_EXT4_IOC_RESIZE_FS = 0x40086610
_FLAGS_OFFSET = 52  # of lo_flags in struct loop_info64
_READ_ONLY = 1
_AUTOCLEAR = 4
_ATTEMPTS = 64


def _configuration(image: int, read_only: bool) -> bytes:
    """``struct loop_config`` of linux/loop.h."""
    information = bytearray(232)
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
    struct.pack_into("=I", information, _FLAGS_OFFSET, flags)
    return struct.pack("=II", image, 0) + bytes(information) + bytes(64)


def _try_free_device(image: int, read_only: bool) -> tuple[str, int] | None:
    """The name and an open descriptor of a device that now is over ``image``."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        name = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
    finally:
        os.close(control)
    device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _LOOP_CONFIGURE, _configuration(image, read_only))
    except OSError as error:
        os.close(device)
        if error.errno == errno.EBUSY:  # somebody else was faster
            return None
        raise
    return name, device


@contextmanager
def attached(image: Path, *, read_only: bool = False) -> Iterator[str]:
    """The path of a loop device over ``image``; mount it inside the block.

    The device frees itself when it is no longer mounted (LO_FLAGS_AUTOCLEAR).

    :raises StorageError: no loop device can be had.
    """
    found: tuple[str, int] | None = None
    file = os.open(image, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            found = _try_free_device(file, read_only)
            if found is not None:
                break
    except OSError as error:
        raise StorageError(
            f"cannot attach {image} to a loop device: {error.strerror}",
            hint="check that /dev/loop-control is there and that the image is readable",
        ) from error
    finally:
        os.close(file)
    if found is None:
        raise StorageError(f"cannot attach {image} to a loop device: all that were tried are busy")
    try:
        yield found[0]
    finally:
        os.close(found[1])


def device_of(image: Path) -> str | None:
    """The loop device that ``image`` is attached to, if any."""
    wanted = str(image.resolve())
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if entry.read_text().rstrip("\n") == wanted:
                return f"/dev/{entry.parts[3]}"
        except OSError:  # it was detached in between
            continue
    return None


def grow(device: str, mount_point: Path, size: int) -> None:
    """Make a mounted ext4 as large as its image file, which has grown to ``size`` bytes.

    :raises PermissionError: without CAP_SYS_RESOURCE; it can then grow only while not mounted.
    """
    file = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, _LOOP_SET_CAPACITY)
    finally:
        os.close(file)
    directory = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        block = os.fstatvfs(directory).f_bsize
        fcntl.ioctl(directory, _EXT4_IOC_RESIZE_FS, struct.pack("=Q", size // block))
    finally:
        os.close(directory)
