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
_INCOMPATIBLE = struct.Struct(">Q")
_ALLOWED_FEATURES = 1 | 8 | 16  # dirty, compression type, extended L2 entries
_END_OF_EXTENSIONS = 0
_DATA_FILE = 0x44415441
_ENCRYPTION = 0x0537BE77
_BACKING_FORMAT = 0xE2792ACA


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


def parse_qcow2(head: bytes) -> Qcow2Header:
    """Parse the beginning of a qcow2 file, header extensions included.

    :raises ImageError: it is no sound qcow2 header.
    """
    if len(head) < 104 or not head.startswith(b"QFI\xfb"):
        raise ImageError("the qcow2 header is truncated", code="image_truncated")
    (_, version, backing_offset, backing_size, cluster_bits, size, crypt, *_) = _HEADER.unpack_from(
        head
    )
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
        if format_ is Format.ISO:
            _check_iso(head, size)
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
    report = _qemu_img(task, "check", path)
    problems = report.get("corruptions", 0) + report.get("check-errors", 0)
    if problems or report.get("image-end-offset", 0) > path.stat().st_size:
        raise ImageError(
            f"the qcow2 image is damaged or truncated: qemu-img check finds {problems} errors",
            code="image_truncated",
        )
    return header.virtual_size


def _qemu_img(task: Task, verb: str, path: Path) -> dict[str, Any]:
    accept = (0, 2, 3) if verb == "check" else (0,)
    output = task.run(
        ["qemu-img", verb, "--output=json", "-f", "qcow2", str(path)],
        limits=ToolLimits(cpu_seconds=600 if verb == "check" else 30),
        accept=accept,
    )
    try:
        report = json.loads(output)
    except ValueError as error:
        raise ImageError(f"qemu-img {verb} says nothing that can be read") from error
    if not isinstance(report, dict):
        raise ImageError(f"qemu-img {verb} says nothing that can be read")
    return report


def _check_iso(head: bytes, size: int) -> None:
    """ECMA-119 §8.4: the primary volume descriptor says how large the volume is."""
    (blocks,) = struct.unpack_from("<I", head, 0x8000 + 80)
    (block_size,) = struct.unpack_from("<H", head, 0x8000 + 128)
    if blocks * block_size > size:
        raise ImageError(
            f"the CD image is truncated: it has {size} of {blocks * block_size} bytes",
            code="image_truncated",
        )


def _refuse(why: str) -> ImageError:
    return ImageError(
        f"the qcow2 image is refused: {why}",
        code="image_refused",
        hint="Make one that stands alone: qemu-img convert -O qcow2 FILE NEW.qcow2",
    )
