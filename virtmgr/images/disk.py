"""Disk and CD images: checked by our own eyes first, then by qemu-img within limits."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtmgr.domain.errors import ImageError
from virtmgr.images.limits import ImportLimits
from virtmgr.images.probe import Format
from virtmgr.images.task import Task, ToolLimits

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")  # the 72 bytes of version 2
_ENTRY = 8  # bytes of one in a table of the first level
_INCOMPATIBLE = struct.Struct(">Q")
_ALLOWED_FEATURES = 1 | 8 | 16  # dirty, compression type, extended L2 entries
_END_OF_EXTENSIONS = 0
_DATA_FILE = 0x44415441
_ENCRYPTION = 0x0537BE77
_BACKING_FORMAT = 0xE2792ACA
_ISO_DESCRIPTOR = 0x8000


@dataclass(frozen=True)
class Qcow2Header:
    """The part of a qcow2 header that decides whether the file may be used (QEMU's qcow2.rst)."""

    version: int
    backing_file: bool
    encrypted: bool
    data_file: bool
    features: int  # incompatible ones
    cluster_bits: int
    virtual_size: int
    l1_end: int  # where the table of the first level ends, in bytes


def parse_qcow2(head: bytes) -> Qcow2Header:
    """Parse the beginning of a qcow2 file, header extensions included.

    :raises ImageError: it is no sound qcow2 header.
    """
    if len(head) < 104 or not head.startswith(b"QFI\xfb"):
        raise _truncated("the qcow2 header is truncated")
    (_, version, backing_offset, backing_size, cluster_bits, size, crypt, *rest) = (
        _HEADER.unpack_from(head)
    )
    l1_size, l1_offset = rest[:2]
    if version not in (2, 3) or not 9 <= cluster_bits <= 21:
        raise ImageError(f"the qcow2 header is damaged (version {version})", code="image_refused")
    features = _INCOMPATIBLE.unpack_from(head, 72)[0] if version == 3 else 0
    start = struct.unpack_from(">I", head, 100)[0] if version == 3 else 72
    extensions = _extensions(head, start, backing_offset)
    return Qcow2Header(
        version=version,
        backing_file=bool(backing_offset or backing_size) or _BACKING_FORMAT in extensions,
        encrypted=crypt != 0 or _ENCRYPTION in extensions,
        data_file=bool(features & 4) or _DATA_FILE in extensions,
        features=features,
        cluster_bits=cluster_bits,
        virtual_size=size,
        l1_end=l1_offset + l1_size * _ENTRY,
    )


def _extensions(head: bytes, start: int, end: int) -> set[int]:
    found: set[int] = set()
    position = start
    while position + 8 <= (end or len(head)) and position + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, position)
        if kind == _END_OF_EXTENSIONS:
            break
        found.add(kind)
        position += 8 + length + (-length % 8)
    return found


def check_disk(path: Path, format_: Format, head: bytes, limits: ImportLimits, task: Task) -> int:
    """The virtual size of a disk or CD image in a private file.

    :raises ImageError: it refers to other files, is encrypted, damaged, truncated or too large.
    """
    task.phase("checking the disk")
    if format_ is Format.QCOW2:
        size = _check_qcow2(path, parse_qcow2(head), task)
    else:
        size = path.stat().st_size
        (_check_iso if format_ is Format.ISO else _check_raw)(head, size)
    if not 0 < size <= limits.virtual_size:
        raise ImageError(
            f"the disk has {size} bytes, and {limits.virtual_size} are allowed",
            code="image_too_large",
        )
    return size


def _check_qcow2(path: Path, header: Qcow2Header, task: Task) -> int:
    reasons = (
        (header.backing_file, "it has a backing file"),
        (header.data_file, "it has an external data file"),
        (header.encrypted, "it is encrypted"),
        (bool(header.features & ~_ALLOWED_FEATURES), "it is marked corrupt or uses new features"),
    )
    for applies, why in reasons:
        if applies:
            raise _refuse(why)
    info = _qemu_img(task, "info", path)
    data = (info.get("format-specific") or {}).get("data") or {}
    if info.get("format") != "qcow2" or "backing-filename" in info or info.get("encrypted"):
        raise _refuse("it has a backing file or is encrypted")
    if "data-file" in data or info.get("virtual-size") != header.virtual_size:
        raise _refuse("it has an external data file, or its header contradicts itself")
    _check_clusters(path, header, task)
    return header.virtual_size


def _check_clusters(path: Path, header: Qcow2Header, task: Task) -> None:
    report = _qemu_img(task, "check", path)
    problems = report.get("corruptions", 0) + report.get("check-errors", 0)
    size, end = path.stat().st_size, report.get("image-end-offset", 0)
    missing = end - size
    if problems or missing >= 1 << header.cluster_bits:
        raise _truncated(
            f"the qcow2 image is damaged or truncated: qemu-img check finds {problems} errors"
        )
    if missing > 0:
        if end - (1 << header.cluster_bits) < header.l1_end <= size:
            return  # the last cluster has that table, as in new images, and all of it
        if not report.get("compressed-clusters"):
            raise _truncated("the qcow2 image is truncated: its last cluster is not whole")
        _read_all(path, task)  # the last cluster of compressed ones need not be whole


def _read_all(path: Path, task: Task) -> None:
    """Let qemu-img decompress every cluster, by comparing the image with itself."""
    same = ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", str(path), str(path)]
    try:
        task.run(same, limits=ToolLimits(cpu_seconds=3600))
    except ImageError as error:
        task.check()
        raise _truncated("the qcow2 image is truncated: not all of it can be read") from error


def _qemu_img(task: Task, verb: str, path: Path) -> dict[str, Any]:
    accept = (0, 2, 3) if verb == "check" else (0,)
    output = task.run(
        ["qemu-img", verb, "--output=json", "-f", "qcow2", str(path)],
        limits=ToolLimits(cpu_seconds=600 if verb == "check" else 30),
        accept=accept,
        code="image_refused",
    )
    try:
        report = json.loads(output)
    except ValueError as error:
        raise _refuse(f"qemu-img {verb} says nothing that can be read") from error
    if not isinstance(report, dict):
        raise _refuse(f"qemu-img {verb} says nothing that can be read")
    return report


def _check_iso(head: bytes, size: int) -> None:
    """ECMA-119 §8.4: the primary volume descriptor says how large the volume is."""
    if len(head) < _ISO_DESCRIPTOR + 2048:
        raise _truncated("the CD image is truncated within its volume descriptor")
    (blocks,) = struct.unpack_from("<I", head, _ISO_DESCRIPTOR + 80)
    (block_size,) = struct.unpack_from("<H", head, _ISO_DESCRIPTOR + 128)
    if blocks * block_size > size:
        raise _truncated(f"the CD image is truncated: it has {size} of {blocks * block_size} bytes")


def _check_raw(head: bytes, size: int) -> None:
    """UEFI §5.3.2: the header of a GUID partition table says where its copy at the end is."""
    if size % 512:
        raise _truncated(f"the disk is truncated: it has {size} bytes, which are no whole sectors")
    if head[512:520] != b"EFI PART" or len(head) < 1024:
        return
    (last_block,) = struct.unpack_from("<Q", head, 512 + 32)
    if (last_block + 1) * 512 > size:
        raise _truncated(
            f"the disk is truncated: it has {size} bytes, and its partition table "
            f"ends at {(last_block + 1) * 512}"
        )


def _truncated(what: str) -> ImageError:
    return ImageError(what, code="image_truncated", hint="Get it again.")


def _refuse(why: str) -> ImageError:
    return ImageError(
        f"the qcow2 image is refused: {why}",
        code="image_refused",
        hint="Make one that stands alone: qemu-img convert -O qcow2 FILE NEW.qcow2",
    )
