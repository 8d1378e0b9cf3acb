"""A VM's disk that came from another host lies on this host's image, and names no other file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from virtmgr.domain.errors import StorageError
from virtmgr.drivers.libvirt import disks

MIB = 1024**2


def run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return done.stdout


def info(disk: Path) -> Any:
    return json.loads(run("qemu-img", "info", "--output=json", disk))


def image(path: Path) -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", path, 8 * MIB)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", path)
    return path


def test_an_overlay_is_laid_on_the_image_of_this_host(tmp_path: Path) -> None:
    there, here = (tmp_path / name for name in ("there", "here"))
    for host in (there, here):
        host.mkdir()
        image(host / "image.qcow2")
    overlay = there / "root.qcow2"
    disks.make(disks.RootDisk(16 * MIB, there / "image.qcow2"), overlay, None)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 2M 1M", overlay)
    (there / "image.qcow2").unlink()  # what the header names is not there, and is not opened
    arrived = here / "root.qcow2"
    for _ in range(2):  # again after a crash
        disks.check_arrived(overlay)
        disks.take_up(overlay, arrived, None)
        disks.rebase(disks.RootDisk(16 * MIB, here / "image.qcow2"), arrived)
    assert info(arrived)["backing-filename"] == str(here / "image.qcow2")
    for pattern, place in ((7, "0 1M"), (9, "2M 1M")):
        run("qemu-io", "-f", "qcow2", "-c", f"read -P {pattern} {place}", arrived)


def test_one_without_an_image_stands_alone(tmp_path: Path) -> None:
    disk = image(tmp_path / "came.qcow2")
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", disk)
    disks.take_up(disk, tmp_path / "root.qcow2", None)
    disks.rebase(disks.RootDisk(8 * MIB), tmp_path / "root.qcow2")
    assert "backing-filename" not in info(tmp_path / "root.qcow2")


@pytest.mark.parametrize("how", ["data_file", "corrupt", "raw"])
def test_what_names_other_files_or_is_none_is_refused(tmp_path: Path, how: str) -> None:
    disk = tmp_path / "came.qcow2"
    if how == "data_file":
        option = f"data_file={tmp_path / 'other'}"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", option, disk, MIB)
    elif how == "corrupt":
        image(disk)
        with disk.open("r+b") as file:
            file.seek(79)
            file.write(b"\x02")
    else:
        disk.write_bytes(bytes(4096))
    with pytest.raises(StorageError):
        disks.check_arrived(disk)
