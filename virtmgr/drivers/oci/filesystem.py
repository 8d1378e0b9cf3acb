"""File systems in image files: tell what is there, make ext4 where nothing is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from virtmgr.domain.errors import StorageError
from virtmgr.drivers import sparse

_CHUNK = 1 << 20
_INCOMPAT_64BIT = 0x80
_MAGIC = (  # type, offset, bytes there
    ("ext4", 1080, b"\x53\xef"),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 65600, b"_BHRfS_M"),
)


def is_blank(image: Path) -> bool:
    """Whether ``image`` holds nothing but zeros. Holes are not read."""
    file = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, end in sparse.extents(file):
            while start < end:
                piece = os.pread(file, min(_CHUNK, end - start), start)
                if not piece:
                    break
                if piece.count(0) != len(piece):
                    return False
                start += len(piece)
        return True
    finally:
        os.close(file)


def type_of(image: Path) -> str | None:
    """The file system in ``image``: ext4, xfs or btrfs; None for anything else."""
    with image.open("rb") as file:
        for name, offset, magic in _MAGIC:
            file.seek(offset)
            if file.read(len(magic)) == magic:
                return name
    return None


def make_ext4(image: Path) -> None:
    """Put an empty ext4 into ``image``, whatever is in it.

    :raises StorageError: mkfs.ext4 fails.
    """
    command = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E"]
    command += ["lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StorageError(
            f"cannot make a file system in {image}: {done.stderr.strip()}",
            hint="check that e2fsprogs is installed and that the disk is not full",
        )


def can_grow(image: Path) -> bool:
    """Whether the ext4 in ``image`` is smaller than the image (superblock: ext4 on-disk format)."""
    with image.open("rb") as file:
        file.seek(1024)
        block = file.read(1024)
    size = 1024 << int.from_bytes(block[24:28], "little")
    blocks = int.from_bytes(block[4:8], "little")
    if int.from_bytes(block[96:100], "little") & _INCOMPAT_64BIT:
        blocks |= int.from_bytes(block[336:340], "little") << 32
    return blocks < image.stat().st_size // size - 8  # mkfs may leave a tail that is too small


def grow(image: Path) -> None:
    """Let the ext4 in ``image``, which is not mounted, fill it.

    :raises StorageError: it is damaged.
    """
    # e2fsck: 1 and 2 say that it has repaired something.
    for command, good in ((["e2fsck", "-fp"], (0, 1, 2)), (["resize2fs"], (0,))):
        done = subprocess.run([*command, str(image)], capture_output=True, text=True, check=False)
        if done.returncode not in good:
            raise StorageError(
                f"cannot grow the file system in {image}: {done.stdout}{done.stderr}".strip(),
                hint=f"check it by hand: e2fsck -f {image}",
            )
