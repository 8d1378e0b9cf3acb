"""Container images from layouts, archives, tarballs and a real registry."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from tests.images.conftest import Import, LayoutWriter, digest_of, member, tar_of
from virtmgr.domain.errors import ImageError, InvalidRequest
from virtmgr.images.blobs import BlobStore

LAYER = tar_of(member("bin", type_=tarfile.DIRTYPE), member("bin/hello", b"hello"))


def layout(directory: Path) -> Path:
    writer = LayoutWriter(directory)
    image = writer.image([LAYER], Cmd=["/bin/hello"], Env=["A=1"], User="7")
    return writer.index(image)


def test_layout_directory(tmp_path: Path, do_import: Import, store: BlobStore) -> None:
    manifest = do_import(layout(tmp_path / "oci"))
    assert manifest.config is not None
    assert manifest.config.command == ("/bin/hello",)
    assert manifest.config.user == "7"
    assert manifest.layers[0].diff_id == digest_of(LAYER)
    assert all(store.exists(blob.digest) for blob in manifest.blobs())
    assert store.path(manifest.layers[0].digest).stat().st_mode & 0o77 == 0


def test_history_is_kept_for_people(tmp_path: Path, do_import: Import) -> None:
    writer = LayoutWriter(tmp_path / "oci")
    history = [{"created_by": "ADD \x1b[2J\0" + "x" * 9999}, {"comment": "c", "empty_layer": True}]
    manifest = do_import(writer.index(writer.image([LAYER], history=history)))
    assert [entry.empty_layer for entry in manifest.history] == [False, True]
    assert manifest.history[0].created_by.startswith("ADD  [2J x")
    assert len(manifest.history[0].created_by) == 1024
    assert manifest.for_host().history == ()


def test_init_system_is_by_request(tmp_path: Path, do_import: Import) -> None:
    config = do_import(layout(tmp_path / "oci"), init="system").config
    assert config is not None
    assert (config.init, config.command) == ("system", ("/sbin/init",))


def test_host_architecture_is_chosen_from_nested_indexes(tmp_path: Path, do_import: Import) -> None:
    writer = LayoutWriter(tmp_path / "oci")
    other = tar_of(member("other"))
    images = [writer.image([LAYER]), writer.image([other], architecture="arm64")]
    path = writer.index(*images)
    nested = (path / "index.json").read_bytes()
    writer.index(writer.blob(nested, mediaType="application/vnd.oci.image.index.v1+json"))
    assert do_import(path, architecture="x86_64").layers[0].diff_id == digest_of(LAYER)
    assert do_import(path, architecture="aarch64").layers[0].diff_id == digest_of(other)


def test_oci_archive_and_docker_archive(tmp_path: Path, do_import: Import) -> None:
    source = layout(tmp_path / "oci")
    oci = tmp_path / "oci.tar"
    with tarfile.open(oci, "w") as archive:
        archive.add(source, ".")
    docker = tmp_path / "docker.tar"
    copy(f"oci:{source}", f"docker-archive:{docker}:hello:1")
    packed = tmp_path / "docker.tar.gz"
    packed.write_bytes(gzip.compress(docker.read_bytes()))
    for path in (oci, docker, packed):
        assert do_import(path).layers[0].diff_id == digest_of(LAYER)


def copy(source: str, target: str, *options: str) -> None:
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--quiet", *options, source, target], check=True
    )


@pytest.mark.parametrize(
    "source", ["docker://--help", "docker:///x", "file:///etc/passwd", "oci:/etc", "docker://a b"]
)
def test_sources_that_are_none(source: str, do_import: Import) -> None:
    with pytest.raises(InvalidRequest):
        do_import(source=source)


@pytest.mark.parametrize(
    ("compress", "stored"),
    [
        (bytes, "zstd"),
        (gzip.compress, "gzip"),
        (zstd.compress, "zstd"),
        (lzma.compress, "zstd"),
        (bz2.compress, "zstd"),
    ],
)
def test_tarball(
    compress: Callable[[bytes], bytes],
    stored: str,
    tmp_path: Path,
    do_import: Import,
) -> None:
    path = tmp_path / "misleading.iso"
    path.write_bytes(compress(LAYER))
    manifest = do_import(path, checksum=digest_of(path.read_bytes()))
    assert manifest.layers[0].diff_id == digest_of(LAYER)
    assert manifest.layers[0].compression == stored
    assert manifest.config is not None
    assert manifest.config.init == "app"


def test_tarball_with_systemd_is_a_system(tmp_path: Path, do_import: Import) -> None:
    link = member("sbin/init", type_=tarfile.SYMTYPE, link="../lib/systemd/systemd")
    path = tmp_path / "root.tar"
    path.write_bytes(tar_of(link, member("usr/lib/systemd/systemd", b"x")))
    config = do_import(path).config
    assert config is not None
    assert (config.init, config.stop_signal) == ("system", "SIGRTMIN+3")
    app = do_import(path, init="app").config
    assert app is not None
    assert app.init == "app"


def nothing_left(store: BlobStore) -> bool:
    directory = store.path(digest_of(b"")).parents[1]
    return not [path for path in directory.rglob("*") if path.is_file()] and not any(
        (directory / "scratch").iterdir()
    )


HOSTILE = {
    "traversal": [member("../../etc/cron.d/x", b"x")],
    "hidden traversal": [member("a/./../../x", b"x")],
    "absolute": [member("/etc/passwd", b"x")],
    "through link": [
        member("a", type_=tarfile.SYMTYPE, link="/etc"),
        member("a/passwd", b"x"),
    ],
    "link out": [member("a", type_=tarfile.SYMTYPE, link="../../etc/shadow")],
    "hard link to host": [member("a", type_=tarfile.LNKTYPE, link="/etc/shadow")],
    "hard link up": [member("a", type_=tarfile.LNKTYPE, link="../etc/shadow")],
    "hard link to nothing": [member("a", type_=tarfile.LNKTYPE, link="etc/shadow")],
    "device": [member("dev/sda", type_=tarfile.BLKTYPE, device=(8, 0))],
    "disguised device": [member("dev/null", type_=tarfile.CHRTYPE, device=(1, 1))],
    "owner": [member("a", uid=70000)],
    "whiteout of parent": [member("a/.wh...")],
    "nameless whiteout": [member("a/.wh.")],
    "too many": [member(f"f{number}") for number in range(2100)],
    "long name": [member("n" * 300)],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layers_leave_nothing(
    name: str, tmp_path: Path, do_import: Import, store: BlobStore
) -> None:
    # A file that makes it a root file system first, whatever the names say.
    content = tar_of(member("usr", type_=tarfile.DIRTYPE), *HOSTILE[name])
    path = tmp_path / "layer.tar"
    path.write_bytes(content)
    writer = LayoutWriter(tmp_path / "oci")
    directory = writer.index(
        writer.image(
            [LAYER, gzip.compress(content)], diff_ids=[digest_of(LAYER), digest_of(content)]
        )
    )
    for hostile in (path, directory):
        with pytest.raises(ImageError, match="refused"):
            do_import(hostile)
        assert nothing_left(store)


def test_bombs(tmp_path: Path, do_import: Import, store: BlobStore) -> None:
    big = tar_of(member("usr/big", bytes(2**24)))
    for compress in (gzip.compress, zstd.compress, bz2.compress, lzma.compress):
        path = tmp_path / "bomb"
        path.write_bytes(compress(big))
        with pytest.raises(ImageError, match="bomb"):
            do_import(path)
    assert nothing_left(store)


def damage_blob(path: Path) -> None:
    for blob in (path / "blobs/sha256").iterdir():
        if blob.read_bytes() == LAYER:
            blob.write_bytes(LAYER.replace(b"hello", b"hullo", 1))


def truncate_blob(path: Path) -> None:
    for blob in (path / "blobs/sha256").iterdir():
        if blob.read_bytes() == LAYER:
            blob.write_bytes(LAYER[:700])


def link_blob(path: Path) -> None:
    for blob in (path / "blobs/sha256").iterdir():
        if blob.read_bytes() == LAYER:
            blob.unlink()
            blob.symlink_to("/etc/shadow")


def fifo_index(path: Path) -> None:
    (path / "index.json").unlink()
    os.mkfifo(path / "index.json")


def deep_index(path: Path) -> None:
    (path / "index.json").write_text("[" * 200_000)


def empty_index(path: Path) -> None:
    (path / "index.json").write_text('{"manifests": []}')


@pytest.mark.parametrize(
    "damage", [damage_blob, truncate_blob, link_blob, fifo_index, deep_index, empty_index]
)
def test_damaged_layouts(
    damage: Callable[[Path], None], tmp_path: Path, do_import: Import, store: BlobStore
) -> None:
    path = layout(tmp_path / "oci")
    damage(path)
    with pytest.raises(ImageError):
        do_import(path)
    assert nothing_left(store)


def test_wrong_diff_id(tmp_path: Path, do_import: Import, store: BlobStore) -> None:
    writer = LayoutWriter(tmp_path / "oci")
    path = writer.index(writer.image([LAYER], diff_ids=[digest_of(b"something else")]))
    with pytest.raises(ImageError, match="diff_id"):
        do_import(path)
    assert nothing_left(store)


def test_truncated_tarballs(tmp_path: Path, do_import: Import, store: BlobStore) -> None:
    for compress in (bytes, gzip.compress, zstd.compress, bz2.compress, lzma.compress):
        whole = compress(tar_of(member("usr/a", os.urandom(30000))))
        for part in (0, 1, len(whole) // 3, len(whole) // 2):
            path = tmp_path / "part"
            path.write_bytes(whole[:part])
            with pytest.raises(ImageError):
                do_import(path)
    assert nothing_left(store)


def test_wrong_checksum(tmp_path: Path, do_import: Import, store: BlobStore) -> None:
    path = tmp_path / "root.tar"
    path.write_bytes(LAYER)
    with pytest.raises(ImageError) as failure:
        do_import(path, checksum=digest_of(b""))
    assert failure.value.code == "digest_mismatch"
    assert nothing_left(store)
