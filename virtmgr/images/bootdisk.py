"""A bootable disk (BIOS, one ext4 partition, GRUB) from a directory, without mounting anything."""

from __future__ import annotations

import struct
from pathlib import Path

from virtmgr.domain.errors import ImageError
from virtmgr.images.task import Task

SIZE = 3 * 1024**3
_SECTOR = 512
_START = 1024**2  # of the partition; the gap before it holds GRUB's core
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)  # what GRUB 2.06 can read
_GRUB_DIRECTORY = "usr/lib/grub/i386-pc"
_GRUB_MODULES = (
    *("biosdisk", "part_msdos", "ext2", "serial", "terminal", "normal", "search", "search_label"),
    *("linux", "boot", "echo", "test", "configfile", "gzio", "all_video"),
)
_GRUB_CONFIGURATION = """\
set timeout=0
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
search --no-floppy --label --set=root root
menuentry "Debian" {
  linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0,115200 quiet
  initrd /initrd.img
}
"""


def make_disk(root: Path, target: Path, scratch: Path, task: Task) -> int:
    """Write the tree ``root`` to the new qcow2 file ``target``; returns its virtual size.

    ``root`` must hold a kernel (``/vmlinuz``, ``/initrd.img``) and the package grub-pc-bin.

    :raises ImageError: a tool failed or is missing.
    """
    raw = scratch / "disk.raw"
    core = _make_grub(root, task)
    task.phase("making the file system")
    with open(raw, "xb") as file:
        file.truncate(SIZE)
    task.run(
        [
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-L",
            "root",
            "-O",
            _FEATURES,
            "-E",
            f"offset={_START},root_owner=0:0",
            "-d",
            str(root),
            str(raw),
            f"{(SIZE - _START) // 1024}k",
        ],
        environment={"MKE2FS_CONFIG": "/dev/null"},
    )
    boot = (root / _GRUB_DIRECTORY / "boot.img").read_bytes()
    with open(raw, "r+b") as file:
        file.write(master_boot_record(boot, SIZE))
        file.write(core)
    task.phase("compressing the disk")
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c"]
    task.run([*convert, "-o", "compression_type=zstd", str(raw), str(target)])
    return SIZE


def master_boot_record(boot_code: bytes, size: int) -> bytes:
    """GRUB's boot sector with a partition table of one active Linux partition."""
    sectors = (size - _START) // _SECTOR
    entry = struct.pack(
        "<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", _START // _SECTOR, sectors
    )
    return boot_code[:440].ljust(446, b"\0") + entry + bytes(48) + b"\x55\xaa"


def _make_grub(root: Path, task: Task) -> bytes:
    """GRUB's core image, made by the guest's own tools, with its modules put in place."""
    task.phase("making the boot loader")
    target = root / "boot/grub/i386-pc"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted((root / _GRUB_DIRECTORY).iterdir()):
        if path.suffix in (".mod", ".lst"):
            (target / path.name).write_bytes(path.read_bytes())
    (root / "boot/grub/grub.cfg").write_text(_GRUB_CONFIGURATION)
    task.run(
        [
            "chroot",
            str(root),
            "grub-mkimage",
            "-O",
            "i386-pc",
            "-o",
            "/tmp/core.img",
            "-p",
            "(hd0,msdos1)/boot/grub",
            *_GRUB_MODULES,
        ],
        environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    core = (root / "tmp/core.img").read_bytes()
    (root / "tmp/core.img").unlink()
    if len(core) > _START - _SECTOR:
        raise ImageError("GRUB's core is too large for the gap before the partition")
    return core
