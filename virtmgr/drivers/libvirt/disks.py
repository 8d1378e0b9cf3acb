"""Root disks: a qcow2 overlay on the image's disk, or an empty one.

Formats are always given, never probed, and the image is not opened: a disk image is untrusted and
could name any file of the host as its backing file.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virtmgr.domain.errors import DriverError, ImageError, StorageError
from virtmgr.domain.image import ImageType
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.values import format_bytes
from virtmgr.drivers import sparse
from virtmgr.drivers.libvirt.facts import Owner
from virtmgr.drivers.libvirt.layout import replacing
from virtmgr.drivers.storage.arrivals import link
from virtmgr.drivers.storage.files import disk_errors, sync_directory
from virtmgr.ports.driver import Provision

_TIMEOUT = 120
_CLUSTER = 65536  # bytes, of a qcow2 that says nothing else
_LOOK = 0.5  # seconds between two signs of life of a long copy
_WORDS = 1000  # bytes of a complaint that are shown
_FEATURES_AT = 72  # bytes into the header: incompatible features, of version 3 and later
_KNOWN_FEATURES = 0b11001  # dirty, compression type, extended L2; not corrupt, no external data
_HEADER = struct.Struct(">4sIQIIQ")


@dataclass(frozen=True)
class RootDisk:
    """What a VM's root disk has to be; ``backing`` None: it starts empty."""

    size: int  # bytes that the guest sees
    backing: Path | None = None
    backing_format: str = "qcow2"


def root_disk(workload: DesiredWorkload, provision: Provision) -> RootDisk | None:
    """The root disk of ``workload``; None for a directly booted kernel that asks for none.

    :raises ImageError: the image's disk does not fit into the root disk, or is not there.
    """
    image = workload.image
    size = workload.spec.root_disk_size(image.manifest.type if image else None)
    if image is None or image.manifest.type in (ImageType.ISO, ImageType.KERNEL):
        return RootDisk(size) if size else None
    local = provision.image
    if image.manifest.type is not ImageType.DISK or local is None or local.disk is None:
        raise ImageError(
            f"cannot make the root disk of VM {workload.name}: image {image.name} has no disk",
            hint="a VM starts from a disk, kernel or ISO image",
        )
    least = image.manifest.disk.virtual_size if image.manifest.disk else 0
    if size < least:
        raise ImageError(
            f"cannot make the root disk of VM {workload.name}: {format_bytes(size)} are asked for, "
            f"but image {image.name} needs {format_bytes(least)}",
            hint="raise root_disk.size",
        )
    return RootDisk(size, local.disk, local.disk_format)


def make(disk: RootDisk, path: Path, owner: Owner | None) -> None:
    """Make the disk at ``path``; one that is there already keeps its content."""
    if not path.exists():
        command = ["qemu-img", "create", "-q", "-f", "qcow2"]
        if disk.backing is not None:  # -u: do not open the image to look for its backing files
            command += ["-u", "-b", str(disk.backing), "-F", disk.backing_format]
        with replacing(path) as partial:
            _run([*command, str(partial), str(disk.size)], f"make disk {path}")
            grant(partial, owner)
    grant(path, owner)


def copy(source: Path, path: Path, owner: Owner | None) -> None:
    """Copy a file of a VM that does not run; a qcow2 overlay keeps the image that it lies on.

    :raises StorageError: the disk is full or fails.
    """
    with disk_errors(f"copy {source} to {path}"):
        sparse.copy(source, path, durable=True)
        sync_directory(path.parent)
    grant(path, owner)


def take_up(file: Path, path: Path, owner: Owner | None) -> None:
    """Make a file that came from another host one of a VM; replaces what is there.

    :raises StorageError: the disk is full or fails.
    """
    with disk_errors(f"take {path} up"):
        link(file, path)
    grant(path, owner)


def check_arrived(file: Path) -> None:
    """Refuse a disk from another host whose header names any other file but a backing one, which
    ``rebase`` replaces unread (QEMU's docs/interop/qcow2.rst).

    :raises StorageError: it does, or is none.
    """
    virtual_size(file)
    with file.open("rb") as opened:
        header = opened.read(_FEATURES_AT + 8)
    version = int.from_bytes(header[4:8])
    features = int.from_bytes(header[_FEATURES_AT:]) if version >= 3 else 0
    if features & ~_KNOWN_FEATURES:
        raise StorageError(
            f"disk {file} from another host is refused: it has features that VMs here have not "
            f"({features:#x})",
            code="arrival_refused",
        )


def rebase(disk: RootDisk, path: Path) -> None:
    """Let the overlay at ``path`` lie on this host's file of the image; its content stays.

    What its header named before is not opened.

    :raises StorageError: qemu-img fails.
    """
    backing = ["-b", ""] if disk.backing is None else ["-b", str(disk.backing)]
    if disk.backing is not None:
        backing += ["-F", disk.backing_format]
    _run(["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", *backing, str(path)], f"rebase {path}")


def flatten(disk: Path, target: Path) -> Generator[None, None, None]:
    """Write a disk that no VM uses to the new file ``target``, a qcow2 without a backing file.

    Yields every now and then until it is written; closed before, it ends at once.

    :raises StorageError: the disk is full, or qemu-img fails.
    """
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", str(disk), str(target)]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        except FileNotFoundError as error:
            raise _no_qemu_img(f"copy disk {disk}") from error
        try:
            while process.poll() is None:
                yield None
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        complaint = said.read(_WORDS).decode(errors="replace").strip()
    if process.returncode != 0:
        full = os.strerror(errno.ENOSPC) in complaint
        raise StorageError(
            f"cannot copy disk {disk}: {complaint}", code="disk_full" if full else None
        )
    # qemu-img leaves the end of the last cluster out, as a file has it that was cut off.
    os.truncate(target, -(-target.stat().st_size // _CLUSTER) * _CLUSTER)


def grow(path: Path, size: int) -> None:
    """Grow the disk of a VM that is not running to ``size`` bytes; never shrinks it.

    :raises StorageError: it is larger already, or qemu-img fails.
    """
    present = virtual_size(path)
    if size < present:
        raise shrink_refused(path, present, size)
    if size > present:
        _run(["qemu-img", "resize", "-q", "-f", "qcow2", str(path), str(size)], f"grow disk {path}")


def shrink_refused(path: Path, present: int, size: int) -> StorageError:
    return StorageError(
        f"cannot shrink disk {path} from {format_bytes(present)} to {format_bytes(size)}: "
        "what the guest keeps at its end would be lost",
        hint="set root_disk.size to what it was, or more",
    )


def virtual_size(path: Path) -> int:
    """Bytes that the guest sees of the qcow2 file at ``path``; safe while a VM writes to it.

    Read from its header (QEMU's docs/interop/qcow2.rst), which costs no process.
    """
    try:
        with path.open("rb") as file:
            magic, _version, _backing, _length, _bits, size = _HEADER.unpack(
                file.read(_HEADER.size)
            )
    except (OSError, struct.error) as error:
        raise StorageError(f"cannot read disk {path}: {error}") from error
    if magic != b"QFI\xfb":
        raise StorageError(f"cannot read disk {path}: it is no qcow2 file")
    return int(size)


def grant(path: Path, owner: Owner | None) -> None:
    """Give ``path`` to QEMU's user, and to nobody else.

    :raises StorageError: it is not there, or may not be changed.
    """
    try:
        path.chmod(0o600)
        if owner is not None:
            os.chown(path, owner.uid, owner.gid)
    except OSError as error:
        raise StorageError(f"cannot give {path} to QEMU's user: {error.strerror}") from error


def check_readable(path: Path, owner: Owner | None) -> None:
    """Check that QEMU's user can read ``path``, a file that VMs share and none may own.

    :raises ImageError: it is not there, or closed to that user.
    """
    if owner is None or owner.uid == 0:
        if not path.is_file():
            raise ImageError(f"cannot use image file {path}: it is not there")
        return
    for parent in reversed(path.parents):
        _require(parent, owner, 0o1)
    _require(path, owner, 0o4)


def _require(path: Path, owner: Owner, bit: int) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise ImageError(f"cannot use image file {path}: {error.strerror}") from error
    if status.st_uid == owner.uid:
        bit <<= 6
    elif status.st_gid == owner.gid:
        bit <<= 3
    if not status.st_mode & bit:
        raise DriverError(
            f"cannot let QEMU read {path}: its user {owner.uid} has no right to",
            hint="directories of images and VMs need mode 0711, image files 0644",
        )


def _no_qemu_img(what: str) -> StorageError:
    return StorageError(f"cannot {what}: qemu-img is not installed", hint="install qemu-utils")


def _run(command: list[str], what: str) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=True)
    except FileNotFoundError as error:
        raise _no_qemu_img(what) from error
    except subprocess.CalledProcessError as error:
        raise StorageError(f"cannot {what}: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise StorageError(f"cannot {what}: no end within {_TIMEOUT} s") from error
