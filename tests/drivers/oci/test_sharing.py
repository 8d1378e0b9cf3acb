"""Containers of one image share what is in it."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tests.drivers.oci.kit import ID_BASE, OciKit, workload
from tests.drivers.storage.conftest import Source, container, source
from virtmgr.drivers.storage.local import LocalStorage
from virtmgr.ports.driver import Provision

__all__ = ["source"]
pytestmark = pytest.mark.host
SIZE = 40 * 1024**2


def image_of(directory: Path, kit: OciKit) -> bytes:
    """The kit's busybox with 40 MiB beside it that nothing compresses."""
    (kit.layer / "ballast").write_bytes(os.urandom(SIZE))
    target = directory / "layer.tar"
    with tarfile.open(target, "w") as archive:
        for path in sorted(kit.layer.iterdir()):
            archive.add(path, path.name)
    return target.read_bytes()


def used(*directories: Path) -> int:
    """Bytes on disk, without what is mounted there."""
    total = 0
    for directory in directories:
        device = directory.stat().st_dev
        for parent, names, files in os.walk(directory):
            kept = [name for name in names if (Path(parent) / name).lstat().st_dev == device]
            names[:] = kept
            total += sum((Path(parent) / name).lstat().st_blocks * 512 for name in [*kept, *files])
    return total


def test_five_containers_take_the_disk_of_one_copy(
    kit: OciKit, tmp_path: Path, source: Source
) -> None:
    storage = LocalStorage(directory=kit.directory / "pool")
    manifest = container(source, image_of(tmp_path, kit))
    image = storage.ensure_image("image", manifest, source, lambda *_: None)
    one_copy = used(storage.directory)
    provision = Provision(image=image, volumes={}, id_base=ID_BASE)
    for number in range(5):
        desired = workload("/bin/sh", "-c", "echo 1 >/mine; exec sleep 1000", name=f"web{number}")
        kit.driver.prepare(desired, provision)
        kit.driver.start(desired, provision)
    total = used(storage.directory, kit.directory / "state")
    print(f"one copy {one_copy}, with five containers {total}: {total / one_copy:.4f}")
    assert one_copy >= SIZE
    assert total <= one_copy * 1.05
    assert storage.collect_images([manifest]) == 0
    assert used(storage.directory) == one_copy
