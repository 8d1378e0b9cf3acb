"""Roots of containers as directories and mounts."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drivers.oci.kit import OciKit, workload
from virtmgr.domain.errors import StorageError
from virtmgr.drivers.oci import mounts
from virtmgr.drivers.oci.rootfs import remove_tree

pytestmark = pytest.mark.host

Mount = Callable[[Path], None]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A shared mount, as the driver's run directory is."""
    mounts.share(tmp_path)
    yield tmp_path
    mounts.unshare(tmp_path)


@pytest.fixture
def mount_elsewhere(shared: Path) -> Iterator[Mount]:
    """Mounts a file system from another mount namespace, which holds it to the end."""
    del shared  # is left first
    held: list[subprocess.Popen[bytes]] = []

    def mount(target: Path) -> None:
        script = 'mount -t tmpfs held "$0" && echo ready && exec sleep 1000'
        command = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script]
        process = subprocess.Popen([*command, str(target)], stdout=subprocess.PIPE)
        held.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    yield mount
    for process in held:
        process.kill()
        process.communicate()


def test_a_mount_of_another_namespace_is_no_hindrance(shared: Path, mount_elsewhere: Mount) -> None:
    root = shared / "workload"
    (root / "rootfs/deep").mkdir(parents=True)
    mount_elsewhere(root / "rootfs/deep")
    with pytest.raises(OSError, match="busy"):
        (root / "rootfs/deep").rmdir()
    remove_tree(root)
    assert not root.exists()
    assert not any(mount.target.is_relative_to(root) for mount in mounts.mounts())


def test_what_stays_mounted_is_named(shared: Path, mount_elsewhere: Mount) -> None:
    root = shared / "workload"
    root.mkdir()
    mount_elsewhere(root)  # the directory itself: nobody but its own maker unmounts that
    with pytest.raises(StorageError, match=str(root)) as failure:
        remove_tree(root, patience=0.1)
    assert failure.value.code == "in_use"
    assert f"({root})" in failure.value.message
    mounts.unmount(root)
    remove_tree(root)
    assert not root.exists()


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_the_root_is_open_to_its_users_whatever_the_umask(umask: int, kit: OciKit) -> None:
    desired = workload("/bin/sleep", "1000", user="web")
    before = os.umask(umask)
    try:
        kit.driver.prepare(desired, kit.provision())
    finally:
        os.umask(before)
    place = kit.driver.places.of(desired.id)
    assert stat.S_IMODE(place.upper.stat().st_mode) == 0o755
