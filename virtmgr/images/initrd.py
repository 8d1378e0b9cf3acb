"""Whether an initial RAM disk is whole: cpio archives after one another, plain or compressed.

The format is Linux' own (Documentation/driver-api/early-userspace/buffer-format.rst). What
follows a plain archive in a compression that is not known here is taken as it is: only the
guest's kernel reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from virtmgr.domain.compression import Compression, decompressed, detect_compression
from virtmgr.domain.errors import ImageError
from virtmgr.images.files import read_regular

_HEADER = 110
_LONGEST_NAME = 4096
_MAGIC = (b"070701", b"070702")


def check_initrd(path: Path, compression: Compression, *, limit: int) -> None:
    """Read it through to its end.

    :raises ImageError: it is damaged, truncated, or has more than ``limit`` bytes uncompressed.
    """
    reader = _Reader(decompressed(read_regular(path), compression, limit=limit))
    while (head := reader.head()).startswith(_MAGIC):
        _read_archive(reader)
    inner = detect_compression(head)
    if inner is not Compression.NONE:
        reader = _Reader(decompressed(reader.rest(), inner, limit=limit))
        while reader.head().startswith(_MAGIC):
            _read_archive(reader)


def _read_archive(reader: _Reader) -> None:
    start = reader.position
    while True:
        header = reader.read(_HEADER)
        try:
            fields = [int(header[at : at + 8], 16) for at in range(6, _HEADER, 8)]
        except ValueError as error:
            raise _damaged() from error
        size, name_size = fields[6], fields[11]
        if not header.startswith(_MAGIC) or not 0 < name_size <= _LONGEST_NAME or size < 0:
            raise _damaged()
        name = reader.read(name_size)
        reader.skip(-(reader.position - start) % 4)
        reader.skip(size)
        if name == b"TRAILER!!!\0":
            return
        reader.skip(-(reader.position - start) % 4)


class _Reader:
    """Bytes of a stream by count."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self.position = 0

    def head(self) -> bytes:
        """What comes after padding by zeros; empty at the end."""
        while len(self._buffer.lstrip(b"\0")) < 6 and (chunk := next(self._chunks, b"")):
            self._take(len(self._buffer) - len(self._buffer.lstrip(b"\0")))
            self._buffer += chunk
        self._take(len(self._buffer) - len(self._buffer.lstrip(b"\0")))
        return self._buffer

    def read(self, count: int) -> bytes:
        """:raises ImageError: there are fewer."""
        while len(self._buffer) < count:
            self._buffer += self._next()
        return self._take(count)

    def skip(self, count: int) -> None:
        """:raises ImageError: there are fewer."""
        while count > len(self._buffer):
            count -= len(self._take(len(self._buffer)))
            self._buffer = self._next()
        self._take(count)

    def rest(self) -> Iterator[bytes]:
        return chain((self._buffer,), self._chunks)

    def _next(self) -> bytes:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise ImageError("the initial RAM disk is truncated", code="image_truncated")
        return chunk

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        self.position += count
        return taken


def _damaged() -> ImageError:
    return ImageError(
        "the initial RAM disk is refused: it is no cpio archive of the new ASCII format",
        code="image_refused",
    )
