"""Disks, CDs and kernels."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.images.conftest import Import, member, tar_of
from tests.images.test_containers import nothing_left
from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import ImageType
from virtmgr.images.blobs import BlobStore
from virtmgr.images.tree import Tree

MIB = 1024**2


def qemu_img(*arguments: object) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def qcow2(path: Path) -> Path:
    raw = path.with_suffix(".data")
    raw.write_bytes(os.urandom(3 * MIB))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


def bootable_raw(size: int = 5 * MIB) -> bytes:
    return bytes(510) + b"\x55\xaa" + bytes(size - 512)


def iso(blocks: int = 40) -> bytes:
    content = bytearray(blocks * 2048)
    content[0x8000:0x8007] = b"\x01CD001\x01"
    struct.pack_into("<I", content, 0x8000 + 80, blocks)
    struct.pack_into("<H", content, 0x8000 + 128, 2048)
    return bytes(content)


def kernel() -> bytes:
    content = bytearray(8192)
    content[0x1F1] = 1
    struct.pack_into("<I", content, 0x1F4, (8192 - 1024) // 16)
    content[510:512] = b"\x55\xaa"
    content[0x202:0x206] = b"HdrS"
    return bytes(content)


def test_qcow2(tmp_path: Path, do_import: Import, store: BlobStore) -> None:
    manifest = do_import(qcow2(tmp_path / "disk.tar"))
    assert manifest.type is ImageType.DISK
    assert manifest.disk is not None
    assert (manifest.disk.format, manifest.disk.virtual_size) == ("qcow2", 3 * MIB)
    assert store.exists(manifest.disk.blob.digest)


def test_raw_is_stored_sparse(tmp_path: Path, do_import: Import, store: BlobStore) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bootable_raw(64 * MIB))
    disk = do_import(path).disk
    assert disk is not None
    assert disk.format == "raw"
    status = store.path(disk.blob.digest).stat()
    assert status.st_size == 64 * MIB
    assert status.st_blocks * 512 < 8 * MIB


def test_raw_without_boot_sector_only_on_request(tmp_path: Path, do_import: Import) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"some file system" * 4096)
    with pytest.raises(ImageError):
        do_import(path)
    assert do_import(path, type=ImageType.DISK).type is ImageType.DISK


def test_iso(tmp_path: Path, do_import: Import) -> None:
    path = tmp_path / "cd"
    path.write_bytes(iso())
    assert do_import(path).type is ImageType.ISO
    with pytest.raises(ImageError, match="asked for"):
        do_import(path, type=ImageType.DISK)


def test_kernel_from_directory_and_archive(tmp_path: Path, do_import: Import) -> None:
    directory = tmp_path / "boot"
    directory.mkdir()
    (directory / "vmlinuz-6.1").write_bytes(kernel())
    (directory / "initrd.img-6.1").write_bytes(Tree().initrd())
    (directory / "cmdline").write_text("console=ttyS0 quiet\n")
    archive = tmp_path / "boot.tar"
    archive.write_bytes(
        tar_of(*(member(path.name, path.read_bytes()) for path in directory.iterdir()))
    )
    for path in (directory, archive):
        manifest = do_import(path)
        assert manifest.kernel is not None
        assert manifest.kernel.initrd is not None
        assert manifest.kernel.command_line == "console=ttyS0 quiet"


def with_backing(path: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", path, "10M")


def with_data_file(path: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={path}.ext", path, "10M")


def encrypted(path: Path) -> None:
    qcow2(path)
    with open(path, "r+b") as file:
        file.seek(32)  # crypt_method
        file.write(struct.pack(">I", 2))


def huge(path: Path) -> None:
    qemu_img("create", "-f", "qcow2", path, "2T")


def truncated(path: Path) -> None:
    qcow2(path)
    os.truncate(path, path.stat().st_size - MIB)


def header_only(path: Path) -> None:
    qcow2(path)
    os.truncate(path, 60)


def corrupt(path: Path) -> None:
    qcow2(path)
    with open(path, "r+b") as file:
        file.seek(0x30000)
        file.write(os.urandom(65536))


def vmdk(path: Path) -> None:
    qemu_img("create", "-f", "vmdk", path, "10M")


def short_iso(path: Path) -> None:
    path.write_bytes(iso()[:-4096])


def short_kernel(path: Path) -> None:
    path.write_bytes(kernel()[:-600])


def nonsense(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\necho hello\n")


def fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    "make",
    [
        with_backing,
        with_data_file,
        encrypted,
        huge,
        truncated,
        header_only,
        corrupt,
        vmdk,
        short_iso,
        short_kernel,
        nonsense,
        fifo,
    ],
)
def test_refused(
    make: Callable[[Path], None], tmp_path: Path, do_import: Import, store: BlobStore
) -> None:
    path = tmp_path / "disk"
    make(path)
    with pytest.raises(ImageError):
        do_import(path)
    assert nothing_left(store)
