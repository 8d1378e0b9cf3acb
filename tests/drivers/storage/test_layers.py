"""Layers are unpacked faithfully, once, and never out of their directory."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from backports import zstd

from tests.drivers.storage.conftest import Source, container, leftovers, tar_of
from virtmgr.domain.errors import HostError, ImageError
from virtmgr.domain.image import ImageManifest
from virtmgr.drivers.storage.local import LocalStorage

pytestmark = pytest.mark.host
DIRECTORY: dict[str, object] = {"type": tarfile.DIRTYPE}


def ensure(storage: LocalStorage, manifest: ImageManifest, source: Source) -> tuple[Path, ...]:
    return storage.ensure_image("image", manifest, source, lambda *_: None).layers


@pytest.mark.parametrize("compress", [None, gzip.compress, zstd.compress])
def test_content_owner_mode_time_and_links(
    compress: object, storage: LocalStorage, source: Source
) -> None:
    tar = tar_of(
        ("./", {**DIRECTORY, "mode": 0o711}),
        ("bin/su", {"content": b"su", "mode": 0o4755, "uid": 12, "gid": 34, "mtime": 1000}),
        ("bin/hard", {"type": tarfile.LNKTYPE, "linkname": "bin/su"}),
        ("lib", {"type": tarfile.SYMTYPE, "linkname": "/usr/lib", "uid": 5}),
        ("run", {**DIRECTORY, "mode": 0o1777, "mtime": 2000}),
        ("run/pipe", {"type": tarfile.FIFOTYPE}),
        ("dev/null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        ("n\udcff" + "x" * 200, {"content": b"long and undecodable"}),
    )
    (root,) = ensure(storage, container(source, tar, compress=compress), source)
    su = (root / "bin/su").stat()
    assert (su.st_mode & 0o7777, su.st_uid, su.st_gid, su.st_mtime) == (0o4755, 12, 34, 1000)
    assert (root / "bin/hard").stat().st_ino == su.st_ino
    assert (root / "lib").readlink() == Path("/usr/lib")
    assert (root / "lib").lstat().st_uid == 5
    assert (root / "run").stat().st_mtime == 2000
    assert stat.S_ISFIFO((root / "run/pipe").stat().st_mode)
    assert not (root / "dev/null").exists()
    assert root.stat().st_mode & 0o7777 == 0o711
    assert len(list(root.iterdir())) == 5
    assert root.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["/", ".", "./"])
def test_the_root_may_be_a_member(name: str, storage: LocalStorage, source: Source) -> None:
    tar = tar_of((name, {**DIRECTORY, "mode": 0o700}), ("a", {"content": b"x"}))
    (root,) = ensure(storage, container(source, tar), source)
    assert [path.name for path in root.iterdir()] == ["a"]


def test_whiteouts_as_overlayfs_sees_them(
    storage: LocalStorage, source: Source, tmp_path: Path
) -> None:
    lower = tar_of(
        ("gone", {"content": b"1"}),
        ("opaque/old", {"content": b"1"}),
        ("remade/old", {"content": b"1"}),
        ("kept/old", {"content": b"1"}),
    )
    upper = tar_of(
        (".wh.gone", {}),
        ("opaque/new", {"content": b"2"}),
        ("opaque/.wh..wh..opq", {}),
        (".wh.remade", {}),
        ("remade", DIRECTORY),
        ("remade/new", {"content": b"2"}),
        ("kept/new", {"content": b"2"}),
        (".wh..wh.plnk", {}),
    )
    layers = ensure(storage, container(source, lower, upper), source)
    merged = tmp_path / "merged"
    merged.mkdir()
    option = "lowerdir=" + ":".join(str(path) for path in reversed(layers))
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", option, merged], check=True)
    try:
        found = {str(path.relative_to(merged)) for path in merged.rglob("*")}
    finally:
        subprocess.run(["umount", merged], check=True)
    assert found == {
        "opaque",
        "opaque/new",
        "remade",
        "remade/new",
        "kept",
        "kept/old",
        "kept/new",
    }


HOSTILE: dict[str, list[tuple[str, Mapping[str, object]]]] = {
    "traversal": [("../x", {})],
    "absolute": [("/x", {})],
    "through link": [("a", {"type": tarfile.SYMTYPE, "linkname": "/etc"}), ("a/x", {})],
    "link out": [("a", {"type": tarfile.SYMTYPE, "linkname": "../x"})],
    "hard link": [("a", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})],
    "device": [("sda", {"type": tarfile.BLKTYPE, "devmajor": 8})],
    "owner": [("a", {"uid": 100000})],
    "directory then link": [
        ("a", DIRECTORY),
        ("a", {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
    ],
    "whiteout": [("a/.wh...", {})],
    "beneath a whiteout": [("a/.wh.b/c", {})],
    "bomb": [("a", {"content": bytes(2**23)})],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layers(name: str, storage: LocalStorage, source: Source) -> None:
    members = [("usr", DIRECTORY), *HOSTILE[name]]
    manifest = container(source, tar_of(*members), compress=gzip.compress)
    with pytest.raises(ImageError):
        ensure(storage, manifest, source)
    storage.collect_images([])
    assert leftovers(storage) == []


def test_nothing_is_followed_through_an_earlier_layer(
    storage: LocalStorage, source: Source, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    first = tar_of(("a", {"type": tarfile.SYMTYPE, "linkname": str(outside)}))
    second = tar_of(("a/passwd", {"content": b"x"}), ("\n\x1b[2J", {"content": b"odd"}))
    lower, upper = ensure(storage, container(source, first, second), source)
    assert (lower / "a").is_symlink()
    assert (upper / "a/passwd").read_bytes() == b"x"
    assert (upper / "\n\x1b[2J").read_bytes() == b"odd"
    assert list(outside.iterdir()) == []


def test_wrong_diff_id_and_truncation(storage: LocalStorage, source: Source) -> None:
    tar = tar_of(("a", {"content": os.urandom(50000)}))
    good = container(source, tar).layers[0]
    cut = tar[:20000]
    broken = [
        good.model_copy(update={"diff_id": "sha256:" + "0" * 64}),
        good.model_copy(update={"digest": source.add(cut), "size": len(cut)}),
        good.model_copy(update={"compression": "gzip"}),
    ]
    for layer in broken:
        manifest = container(source).model_copy(update={"layers": (layer,)})
        with pytest.raises(ImageError):
            ensure(storage, manifest, source)
    storage.collect_images([])
    assert leftovers(storage) == []


def test_half_a_layer_of_a_crash_is_made_again(storage: LocalStorage, source: Source) -> None:
    manifest = container(source, tar_of(("a", {"content": b"1"})))
    half = storage.directory / "parts/layers" / manifest.layers[0].diff_id[7:]
    (half / "junk").mkdir(parents=True)
    (root,) = ensure(storage, manifest, source)
    assert [path.name for path in root.iterdir()] == ["a"]


def test_callers_share_one_fetch(storage: LocalStorage, source: Source) -> None:
    manifest = container(source, tar_of(("a", {"content": os.urandom(10000)})))
    source.gate.clear()
    results: list[tuple[Path, ...]] = []
    threads = [
        threading.Thread(target=lambda: results.append(ensure(storage, manifest, source)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    source.gate.set()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert len(set(results)) == 1
    assert len(source.fetches) == 1


def test_layers_are_shared_and_collected(storage: LocalStorage, source: Source) -> None:
    base = tar_of(("base", {"content": b"x" * 100_000}))
    first = container(source, base)
    second = container(source, base, tar_of(("more", {"content": b"1"})))
    ensure(storage, first, source)
    ensure(storage, second, source)
    assert len(source.fetches) == 2
    assert storage.collect_images([first]) > 0
    assert [path.name for path in (storage.directory / "layers").iterdir()] == [
        first.layers[0].diff_id[7:]
    ]
    assert storage.collect_images([]) >= 100_000
    assert leftovers(storage) == []


def test_source_without_the_blob(storage: LocalStorage, source: Source) -> None:
    manifest = container(source, tar_of(("a", {})))
    source.cut = 0
    with pytest.raises(HostError):
        ensure(storage, manifest, source)
