"""Loop devices on a host's disk. They know no namespaces, so a power cut has to detach them."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.lab.kernel import LabError

_LOOP_CLR_FD, _LOOP_GET_STATUS64 = 0x4C01, 0x4C05  # <linux/loop.h>
_INFO_BYTES = 232
_END_SECONDS = 20.0


@dataclass(frozen=True)
class Loop:
    """A device, and the file that it shows: the device and the inode that this is on."""

    path: Path
    on_device: int
    inode: int

    @property
    def device(self) -> int:
        return self.path.stat().st_rdev


def _attached() -> Iterator[Loop]:
    for directory in Path("/sys/block").glob("loop*/loop"):
        path = Path("/dev") / directory.parent.name
        with suppress(OSError), path.open("rb") as file:  # it may go at any moment
            info = fcntl.ioctl(file, _LOOP_GET_STATUS64, bytes(_INFO_BYTES))
            on_device, inode = struct.unpack_from("=QQ", info)
            yield Loop(path, on_device, inode)


def release(image: Path) -> None:
    """Wait until no loop device shows ``image``, after detaching those of files on its file system.

    Nobody may have it mounted any more.

    :raises LabError: it stays in use.
    """
    if not image.exists():
        return
    file = image.stat()
    deadline = time.monotonic() + _END_SECONDS
    while True:
        loops = list(_attached())
        holders = [loop for loop in loops if (loop.on_device, loop.inode) == _key(file)]
        if not holders:
            return
        inside = {loop.device for loop in holders}
        for loop in loops:
            if loop.on_device in inside:
                with suppress(OSError), loop.path.open("rb") as device:
                    fcntl.ioctl(device, _LOOP_CLR_FD)
        if time.monotonic() > deadline:
            raise LabError(f"{image} is still in use by {', '.join(str(x.path) for x in holders)}")
        time.sleep(0.01)


def _key(file: os.stat_result) -> tuple[int, int]:
    # The kernel tells a device as it encodes it for user space in 64 bits, as stat does.
    return file.st_dev, file.st_ino
