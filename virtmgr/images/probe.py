"""What a file is, by its content and never by its name."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from virtmgr.domain.compression import Compression, decompressed, detect_compression
from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import ImageType
from virtmgr.images.files import read_regular

HEAD = 64 * 1024
_ISO_MAGIC = slice(0x8001, 0x8006)
_FOREIGN = {
    b"KDMV": "VMDK",
    b"# Disk DescriptorFile": "VMDK",
    b"vhdxfile": "VHDX",
    b"conectix": "VHD",
    b"QED\0": "QED",
    b"<<< ": "VDI",
    b"LUKS\xba\xbe": "encrypted (LUKS)",
    b"Bochs Virtual HD Image": "Bochs",
    b"WithoutFreeSpace": "Parallels",
    b"WithouFreSpacExt": "Parallels",
}


class Format(StrEnum):
    """What a file holds once it is decompressed."""

    TAR = "tar"  # a root file system, an OCI archive, a docker-archive, or kernel and initrd
    QCOW2 = "qcow2"
    RAW = "raw"  # a disk with a partition table or boot sector
    ISO = "iso"
    KERNEL = "kernel"
    INITRD = "initrd"
    SQUASHFS = "squashfs"  # a root file system
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Probe:
    format: Format
    compression: Compression

    @property
    def type(self) -> ImageType | None:
        """The type of image that it makes; None where that takes a closer look."""
        return {
            Format.QCOW2: ImageType.DISK,
            Format.RAW: ImageType.DISK,
            Format.ISO: ImageType.ISO,
            Format.KERNEL: ImageType.KERNEL,
        }.get(self.format)


def probe(path: Path) -> Probe:
    """Look at the beginning of ``path``, through compression where there is one.

    :raises ImageError: it is empty, or a disk format that must be converted first.
    """
    head = read_head(path)
    if not head:
        raise ImageError("the file is empty", code="image_truncated")
    compression = detect_compression(head)
    if compression is not Compression.NONE:
        head = _plain_head(path, compression)
        if head.startswith((b"070701", b"070702")):
            return Probe(Format.INITRD, compression)
    return Probe(_format(head), compression)


def read_head(path: Path) -> bytes:
    """The first piece of a file, at least ``HEAD`` bytes unless it is shorter."""
    return next(read_regular(path), b"")


def _plain_head(path: Path, compression: Compression) -> bytes:
    head = b""
    pieces: Iterator[bytes] = decompressed(read_regular(path), compression, limit=2**62)
    for piece in pieces:
        head += piece
        if len(head) >= HEAD:
            break
    return head


def _format(head: bytes) -> Format:
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise ImageError(
                f"the file is a disk in {name} format, which is not taken",
                code="image_unknown",
                hint="Convert it first: qemu-img convert -O qcow2 FILE FILE.qcow2",
            )
    checks = (
        (Format.SQUASHFS, head.startswith(b"hsqs")),
        (Format.QCOW2, head.startswith(b"QFI\xfb")),
        (Format.ISO, head[_ISO_MAGIC] == b"CD001"),
        (Format.TAR, _is_tar(head)),
        (Format.KERNEL, _is_kernel(head)),
        (Format.INITRD, head.startswith((b"070701", b"070702"))),
        (Format.RAW, head[510:512] == b"\x55\xaa" or head[512:520] == b"EFI PART"),
    )
    return next((format_ for format_, matches in checks if matches), Format.UNKNOWN)


def _is_tar(head: bytes) -> bool:
    """By the header's checksum, since old archives have no magic number."""
    header = head[:512]
    if len(header) < 512 or not any(header):
        return False
    digits = header[148:156].strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        return False
    return int(digits, 8) == sum(header) - sum(header[148:156]) + 8 * 0x20


def _is_kernel(head: bytes) -> bool:
    """x86 bzImage (Documentation/arch/x86/boot.rst) or arm64 Image."""
    return head[0x202:0x206] == b"HdrS" or head[56:60] == b"ARM\x64"


def check_kernel(head: bytes, size: int) -> None:
    """:raises ImageError: an x86 kernel file is shorter than its header says."""
    if head[0x202:0x206] != b"HdrS":
        return
    sectors = head[0x1F1] or 4
    (paragraphs,) = struct.unpack_from("<I", head, 0x1F4)
    if size < (sectors + 1) * 512 + paragraphs * 16:
        raise ImageError("the kernel file is truncated", code="image_truncated")
