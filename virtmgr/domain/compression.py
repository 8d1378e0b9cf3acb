"""Decompressing untrusted streams within bounds. Pure: bytes in, bytes out."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Protocol

from backports import zstd

from virtmgr.domain.errors import ImageError

_PIECE = 1024**2
_LARGEST_WINDOW_LOG = 27  # zstd: 128 MiB of memory at most, as the zstd tool's own default
_XZ_MEMORY = 256 * 1024**2


class Compression(StrEnum):
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


_MAGIC = {
    b"\x1f\x8b\x08": Compression.GZIP,
    b"\x28\xb5\x2f\xfd": Compression.ZSTD,
    b"\xfd7zXZ\x00": Compression.XZ,
    b"BZh": Compression.BZIP2,
}


def detect_compression(head: bytes) -> Compression:
    """The compression of a stream that begins with ``head``, by its magic number."""
    for magic, compression in _MAGIC.items():
        if head.startswith(magic):
            return compression
    return Compression.NONE


class _Engine(Protocol):
    """What ``bz2``, ``lzma`` and ``zstd`` decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._full and not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self._full = len(piece) == max_length
        return piece


_ENGINES: dict[Compression, Callable[[], _Engine]] = {
    Compression.GZIP: _Gzip,
    Compression.ZSTD: lambda: zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW_LOG}
    ),
    Compression.XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
    Compression.BZIP2: bz2.BZ2Decompressor,
}


def decompressed(
    chunks: Iterable[bytes], compression: Compression, *, limit: int
) -> Iterator[bytes]:
    """The uncompressed bytes of ``chunks``, in pieces of at most 1 MiB.

    Concatenated frames (RFC 1952 §2.2, RFC 8878 §3.1) are one stream.

    :raises ImageError: the stream is corrupt or truncated, or has more than ``limit`` bytes.
    """
    pieces = iter(chunks) if compression is Compression.NONE else _expand(chunks, compression)
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > limit:
            raise ImageError(
                f"the {compression} data has more than {limit} bytes uncompressed: "
                "too large, or a decompression bomb",
                code="image_too_large",
            )
        yield piece


def _expand(chunks: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
    make = _ENGINES[compression]
    engine: _Engine | None = None
    empty = True
    try:
        for chunk in chunks:
            data = chunk
            while data or (engine is not None and not engine.needs_input):
                if engine is None:
                    data = data if empty else data.lstrip(b"\0")  # padding between frames
                    if not data:
                        break
                    engine, empty = make(), False
                piece = engine.decompress(data, _PIECE)
                data = b""
                if piece:
                    yield piece
                if engine.eof:
                    data = engine.unused_data
                    engine = None
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError) as error:
        raise ImageError(f"the {compression} data is corrupt: {error}") from error
    if engine is not None or empty:
        raise ImageError(f"the {compression} data is truncated", code="image_truncated")
