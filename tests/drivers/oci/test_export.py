"""Layers of what containers have changed: read from real overlays, unpacked like any other."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from backports import zstd

from tests.drivers.oci.kit import ID_BASE, OciKit, oci_kit, workload
from tests.drivers.storage.conftest import Source, container, source
from virtmgr.domain.errors import DriverError
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.drivers.storage.local import LocalStorage

__all__ = ["source"]
pytestmark = pytest.mark.host

_CHANGES = """
set -e
echo changed >/etc/passwd
rm /etc/group
rm -r /home && mkdir /home && echo new >/home/file
mkdir /made && echo 1 >/made/one && ln /made/one /made/two && ln -s /etc/passwd /made/link
chown 1000:200 /made/one && chmod 4750 /made/one
mkfifo /made/fifo
truncate -s 100M /made/holes && echo end >>/made/holes
mv /data /moved
"""


@pytest.fixture(params=[True, False], ids=["mapped", "shifted"])
def kit(request: pytest.FixtureRequest) -> Iterator[OciKit]:
    with oci_kit(mapped_mounts=request.param) as made:
        for applet in ("mv", "mkfifo", "truncate"):
            (made.layer / "bin" / applet).symlink_to("/bin/busybox")
        (made.layer / "data/deep").mkdir(parents=True)
        (made.layer / "data/deep/file").write_text("as it was\n")
        yield made


def changed(kit: OciKit) -> DesiredWorkload:
    """A container that has made ``_CHANGES`` and has ended."""
    desired = workload("/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done")
    kit.driver.prepare(desired, kit.provision())
    kit.driver.start(desired, kit.provision())
    code, _, said = kit.run(desired.id, "/bin/sh", "-c", _CHANGES)
    assert code == 0, said
    kit.driver.stop(desired.id, timeout=0, force=True)
    return desired


def layer_of(kit: OciKit, workload_id: str) -> bytes:
    return zstd.decompress(b"".join(kit.driver.export(workload_id)))


def test_another_container_starts_from_what_was_changed(kit: OciKit, source: Source) -> None:
    desired = changed(kit)
    place = kit.driver.places.of(desired.id)
    os.setxattr(place.rootfs / "made/one", "user.note", b"\xffkept=\n\0")
    os.setxattr(place.rootfs / "made", "user.note", b"too")
    with socket.socket(socket.AF_UNIX) as listening:
        before = Path.cwd()
        os.chdir(place.rootfs / "made")
        try:
            listening.bind("socket")
        finally:
            os.chdir(before)
    exported = layer_of(kit, desired.id)
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        names = set(tar.getnames())
        assert tar.getmember("made/one").uid == 1000
    assert {"etc/.wh.group", "home/.wh..wh..opq", ".wh.data", "made/fifo"} <= names
    assert "made/socket" not in names
    storage = LocalStorage(directory=kit.directory / "pool")
    manifest = container(source, exported)
    image = storage.ensure_image("image", manifest, source, lambda *_: None)
    holes = image.layers[0] / "made/holes"
    assert holes.stat().st_blocks * 512 < 10 * 1024**2
    layers = (kit.layer, *image.layers, *image.layers)  # one that comes twice is no hindrance
    base = kit.provision()
    assert base.image is not None
    provision = replace(base, image=replace(base.image, layers=layers), id_base=ID_BASE + 65536)
    other = workload("/bin/sleep", "1000")
    kit.driver.prepare(other, provision)
    root = kit.driver.places.of(other.id).rootfs
    assert (root / "etc/passwd").read_text() == "changed\n"
    assert not (root / "etc/group").exists()
    assert [path.name for path in (root / "home").iterdir()] == ["file"]
    assert not (root / "data").exists()
    assert (root / "moved/deep/file").read_text() == "as it was\n"
    assert (image.layers[0] / "made/two").samefile(image.layers[0] / "made/one")
    assert os.getxattr(root / "made/one", "user.note") == b"\xffkept=\n\0"
    assert os.getxattr(root / "made", "user.note") == b"too"
    one = (root / "made/one").stat()
    assert (one.st_uid - ID_BASE - 65536, one.st_gid - ID_BASE - 65536) == (1000, 200)
    assert stat.S_IMODE(one.st_mode) == 0o4750
    assert (root / "made/link").readlink() == Path("/etc/passwd")
    assert stat.S_ISFIFO((root / "made/fifo").stat().st_mode)
    with open(root / "made/holes", "rb") as file:
        file.seek(100 * 1024**2)
        assert file.read() == b"end\n"
    assert (root / "bin/busybox").stat().st_size == (kit.layer / "bin/busybox").stat().st_size
    kit.driver.start(other, provision)
    kit.driver.destroy(other.id)


def test_what_no_image_can_hold(kit: OciKit) -> None:
    desired = changed(kit)
    upper = kit.driver.places.of(desired.id).rootfs
    (upper / "made/.wh.x").write_text("")
    with pytest.raises(DriverError, match=r"made/\.wh\.x") as failure:
        layer_of(kit, desired.id)
    assert failure.value.code == "not_for_an_image"
    (upper / "made/.wh.x").unlink()
    deep = upper / "made"
    for _ in range(130):
        deep = deep / "d"
        deep.mkdir()
    with pytest.raises(DriverError, match="directories"):
        layer_of(kit, desired.id)


def test_after_a_reboot_of_the_host(kit: OciKit) -> None:
    desired = changed(kit)
    before = layer_of(kit, desired.id)
    kit.driver.shut_down()
    kit.restart_agent()
    assert layer_of(kit, desired.id) == before
