"""Images that are really built."""

from __future__ import annotations

import subprocess
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest
from backports import zstd

from virtmgr.domain.errors import ImageError, InvalidRequest
from virtmgr.domain.image import ImageManifest, ImageType
from virtmgr.domain.workload import Kind
from virtmgr.images.apt import Source, mirror_for, sources
from virtmgr.images.blobs import BlobStore
from virtmgr.images.builder import Builder
from virtmgr.images.disk import parse_qcow2
from virtmgr.ports.images import BuildRequest

CACHE = Path.home() / ".cache" / "virtmgr"


def build(store: BlobStore, request: BuildRequest) -> ImageManifest:
    return Builder(store=store, cache=CACHE).build(request, lambda *_: None, lambda: False)


def names(store: BlobStore, manifest: ImageManifest) -> set[str]:
    """What the only layer holds."""
    raw = zstd.decompress(store.path(manifest.layers[0].digest).read_bytes())
    with tarfile.open(fileobj=BytesIO(raw)) as archive:
        return {name.removeprefix("./") for name in archive.getnames()}


def unpack(store: BlobStore, manifest: ImageManifest, target: Path) -> Path:
    raw = zstd.decompress(store.path(manifest.layers[0].digest).read_bytes())
    with tarfile.open(fileobj=BytesIO(raw)) as archive:
        archive.extractall(target)
    return target


@pytest.mark.host
def test_busybox_app(store: BlobStore, tmp_path: Path) -> None:
    manifest = build(store, BuildRequest("busybox"))
    assert manifest.config is not None
    assert manifest.config.init == "app"
    root = unpack(store, manifest, tmp_path / "root")
    for applet in ("httpd", "ping", "nslookup", "wget", "sh", "udhcpc", "sleep", "cat"):
        assert (root / "bin" / applet).readlink() == Path("busybox")
    said = subprocess.run(
        ["chroot", root, "/bin/sh", "/www/cgi-bin/index.cgi"], capture_output=True
    )
    assert said.stdout.startswith(b"Content-Type: text/plain")


def test_busybox_is_reproducible(store: BlobStore) -> None:
    first = build(store, BuildRequest("busybox", init="system"))
    assert first.config is not None
    assert (first.config.command, first.config.stop_signal) == (("/sbin/init",), "SIGUSR2")
    assert build(store, BuildRequest("busybox", init="system")) == first


def test_busybox_vm(store: BlobStore) -> None:
    manifest = build(store, BuildRequest("busybox", kind=Kind.VM))
    assert manifest.type is ImageType.KERNEL
    assert all(store.exists(blob.digest) for blob in manifest.blobs())
    assert len(manifest.blobs()) == 2


@pytest.mark.slow
@pytest.mark.host
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", list(Kind))
def test_debian(kind: Kind, store: BlobStore) -> None:
    manifest = build(store, BuildRequest("debian", kind=kind))
    if kind is Kind.CONTAINER:
        assert manifest.config is not None
        assert manifest.config.stop_signal == "SIGRTMIN+3"
        held = names(store, manifest)
        assert {"usr/bin/cloud-init", "etc/cloud/cloud.cfg.d/90_virtmgr.cfg"} <= held
        assert "usr/sbin/policy-rc.d" not in held
    else:
        assert manifest.disk is not None
        with store.open(manifest.disk.blob.digest) as file:
            assert not parse_qcow2(file.read(4096)).backing_file
    assert not list((store.path(manifest.blobs()[0].digest).parents[1] / "scratch").iterdir())


@pytest.mark.host
@pytest.mark.slow
def test_cancelled_build_leaves_nothing(store: BlobStore) -> None:
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic())
        return asked[-1] - asked[0] > 5

    builder = Builder(store=store, cache=CACHE)
    with pytest.raises(ImageError) as failure:
        builder.build(BuildRequest("debian"), lambda *_: None, cancelled)
    assert failure.value.code == "image_cancelled"
    scratch = store.upload_path("x").parents[1] / "scratch"
    assert not list(scratch.iterdir())
    assert str(scratch) not in Path("/proc/self/mounts").read_text()
    running = subprocess.run(["ps", "-e", "-o", "args"], capture_output=True, text=True).stdout
    assert str(scratch) not in running


@pytest.mark.parametrize(
    "request_",
    [
        BuildRequest("plan9"),
        BuildRequest("debian", suite="--help"),
        BuildRequest("debian", mirror="file:///etc"),
        BuildRequest("busybox", kind=Kind.VM, init="system"),
    ],
)
def test_what_cannot_be(request_: BuildRequest, store: BlobStore) -> None:
    with pytest.raises(InvalidRequest):
        build(store, request_)


def test_mirror_is_that_of_apt(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://no/debian bookworm main\n"
        "deb [signed-by=/x arch=amd64] http://one/debian trixie main contrib # note\n"
    )
    (tmp_path / "sources.list.d/debian.sources").write_text(
        "Types: deb\n# comment\nURIs: http://two/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\n\nTypes: deb-src\nURIs: http://no/debian\nSuites: bookworm\n"
        "Components: main\n"
    )
    found = sources(tmp_path)
    assert Source("http://two/debian", "bookworm-updates", ("main",)) in found
    assert mirror_for("bookworm", found) == "http://two/debian"
    assert mirror_for("sid", found) == "http://one/debian"
    assert mirror_for("sid", ()) == "http://deb.debian.org/debian"
