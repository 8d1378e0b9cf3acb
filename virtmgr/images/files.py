"""Reading files that are not trusted, and making plain private copies of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from virtmgr.domain.compression import Compression, decompressed
from virtmgr.domain.errors import ImageError, StorageError

PIECE = 1024**2
_ZEROS = bytes(PIECE)


def read_regular(path: Path) -> Iterator[bytes]:
    """The bytes of a regular file; anything else (a link, a FIFO, a device) is refused.

    :raises ImageError: it is no regular file or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(
            f"cannot read {path.name}: {error.strerror}", code="image_refused"
        ) from error
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ImageError(f"{path.name} is no regular file", code="image_refused")
        while chunk := file.read(PIECE):
            yield chunk


def read_document(path: Path, limit: int) -> bytes:
    """A small file as a whole.

    :raises ImageError: it has more than ``limit`` bytes.
    """
    content = b""
    for chunk in read_regular(path):
        content += chunk
        if len(content) > limit:
            raise ImageError(f"{path.name} has more than {limit} bytes", code="image_refused")
    return content


def copy_plain(
    chunks: Iterable[bytes], compression: Compression, target: Path, *, limit: int
) -> None:
    """Write ``chunks`` uncompressed to the new file ``target``, sparse where they are zero.

    :raises ImageError: corrupt, truncated, or more than ``limit`` bytes.
    :raises StorageError: the disk is full or fails.
    """
    try:
        with open(target, "xb", buffering=0) as file:
            size = 0
            for piece in decompressed(chunks, compression, limit=limit):
                if piece == _ZEROS[: len(piece)]:
                    file.seek(len(piece), os.SEEK_CUR)
                else:
                    _write_all(file.fileno(), piece)
                size += len(piece)
            file.truncate(size)
    except OSError as error:
        raise StorageError(f"cannot write to the image store: {error.strerror}") from error


def _write_all(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]
