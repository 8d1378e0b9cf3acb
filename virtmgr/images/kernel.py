"""A kernel and its initial RAM disk, to be booted directly."""

from __future__ import annotations

from pathlib import Path

from virtmgr.domain.compression import Compression
from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import ImageManifest, ImageType, Kernel
from virtmgr.images.archive import kernel_role
from virtmgr.images.blobs import BlobStore
from virtmgr.images.files import copy_plain, read_document, read_regular
from virtmgr.images.initrd import check_initrd
from virtmgr.images.limits import ImportLimits
from virtmgr.images.probe import Format, check_kernel, probe, read_head
from virtmgr.images.task import Task

_DEFAULT_COMMAND_LINE = "console=ttyS0"


def collect_kernel(source: Path, target: Path, *, limit: int) -> None:
    """Copy the kernel's parts from an untrusted directory to the new directory ``target``.

    :raises ImageError: a part is there twice, is no regular file, or is too large.
    """
    target.mkdir()
    for path in sorted(source.iterdir()):
        role = kernel_role(path.name)
        if role is None or path.is_symlink():
            continue
        if (target / role).exists():
            raise _refuse(f"the directory has more than one {role}: {path.name}")
        copy_plain(read_regular(path), Compression.NONE, target / role, limit=limit)


def import_kernel(
    directory: Path, *, architecture: str, store: BlobStore, limits: ImportLimits, task: Task
) -> ImageManifest:
    """Take ``kernel``, ``initrd`` and ``cmdline`` (the last two optional) from ``directory``.

    :raises ImageError: one is not what it should be.
    """
    task.phase("checking the kernel")
    kernel, initrd = directory / "kernel", directory / "initrd"
    if not kernel.exists() or probe(kernel).format is not Format.KERNEL:
        raise ImageError(
            "there is no Linux kernel in it",
            code="image_unknown",
            hint="Give a directory with vmlinuz, and where needed initrd and cmdline.",
        )
    check_kernel(read_head(kernel), kernel.stat().st_size)
    if initrd.exists():
        found = probe(initrd)
        if found.format is not Format.INITRD:
            raise _refuse("the initial RAM disk is no cpio archive, plain or compressed")
        check_initrd(initrd, found.compression, limit=limits.archive(initrd.stat().st_size))
    command_line = _command_line(directory / "cmdline", limits.document)
    return ImageManifest(
        type=ImageType.KERNEL,
        architecture=architecture,
        kernel=Kernel(
            kernel=store.adopt(kernel),
            initrd=store.adopt(initrd) if initrd.exists() else None,
            command_line=command_line,
        ),
    )


def _command_line(path: Path, limit: int) -> str:
    if not path.exists():
        return _DEFAULT_COMMAND_LINE
    text = read_document(path, limit).decode("utf-8", "replace").strip()
    if len(text) > 2048 or not text.isprintable():
        raise _refuse("the kernel's command line is too long or not text")
    return text


def _refuse(why: str) -> ImageError:
    return ImageError(why, code="image_refused")
