"""What a tar archive is, and taking single files out of one. Names only choose, never lead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from virtmgr.domain.compression import Compression
from virtmgr.domain.errors import ImageError
from virtmgr.domain.tar import Member, MemberType, TarReader
from virtmgr.images.files import copy_plain

_OCI_FILE = re.compile(r"index\.json|oci-layout|blobs/sha256/[0-9a-f]{64}")
_ARCHIVE_PART = re.compile(r"blobs|repositories|[0-9a-f]{64}(\.tar|\.json)?|[^/]+\.json")
_KERNEL = re.compile(r"(vmlinuz|kernel|bzImage|Image|linux)([._-].*)?")
_INITRD = re.compile(r"(initrd|initramfs)([._-].*)?")
_COMMAND_LINE = re.compile(r"cmdline(\.txt)?")
_MOST_MEMBERS = 100_000


class ArchiveKind(StrEnum):
    ROOT_FS = "root file system"
    OCI = "OCI archive"
    DOCKER = "docker-archive"
    KERNEL = "kernel and initial RAM disk"


def identify(chunks: Iterable[bytes]) -> ArchiveKind:
    """What the uncompressed archive holds; reads no further than it must.

    :raises ImageError: it cannot be read.
    """
    seen: set[str] = set()
    for count, (member, _) in enumerate(TarReader(chunks)):
        _check_count(count)
        name = _clean(member.name)
        top = name.partition("/")[0]
        if name == "oci-layout":
            return ArchiveKind.OCI
        role = kernel_role(name) if member.type is MemberType.FILE else None
        if name == "" or _ARCHIVE_PART.fullmatch(top):
            seen.add(name)
        elif role is not None:
            seen.add(role)
        else:
            return ArchiveKind.ROOT_FS
    if "manifest.json" in seen:
        return ArchiveKind.DOCKER
    return ArchiveKind.KERNEL if "kernel" in seen else ArchiveKind.ROOT_FS


def kernel_role(name: str) -> str | None:
    """Which part of a directly booted kernel a file of this name is."""
    for role, pattern in (
        ("kernel", _KERNEL),
        ("initrd", _INITRD),
        ("cmdline", _COMMAND_LINE),
    ):
        if pattern.fullmatch(name):
            return role
    return None


def extract_oci(chunks: Iterable[bytes], target: Path, *, limit: int) -> None:
    """Take an image layout's files, and nothing else, into the new directory ``target``.

    :raises ImageError: the archive is damaged, or has a file twice or too large.
    """
    (target / "blobs" / "sha256").mkdir(parents=True)
    for count, (member, content) in enumerate(TarReader(chunks)):
        _check_count(count)
        name = _clean(member.name)
        if member.type is MemberType.FILE and _OCI_FILE.fullmatch(name):
            _take(member, content, target / name, limit)


def extract_kernel(chunks: Iterable[bytes], target: Path, *, limit: int) -> None:
    """Take ``kernel``, ``initrd`` and ``cmdline`` into the new directory ``target``."""
    target.mkdir()
    for count, (member, content) in enumerate(TarReader(chunks)):
        _check_count(count)
        role = kernel_role(_clean(member.name))
        if member.type is MemberType.FILE and role is not None:
            _take(member, content, target / role, limit)


def _check_count(count: int) -> None:
    if count >= _MOST_MEMBERS:
        raise ImageError(
            f"the archive has more than {_MOST_MEMBERS} members that are no root file system's",
            code="image_refused",
        )


def _take(member: Member, content: Iterable[bytes], target: Path, limit: int) -> None:
    if target.exists():
        raise ImageError(f"the archive has {target.name} twice", code="image_refused")
    if member.size > limit:
        raise ImageError(
            f"{target.name} has {member.size} bytes, and {limit} are allowed",
            code="image_too_large",
        )
    copy_plain(content, Compression.NONE, target, limit=limit)


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))
