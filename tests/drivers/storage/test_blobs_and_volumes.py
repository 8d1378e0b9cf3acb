"""Disk blobs are resumed and verified; volumes only grow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.drivers.storage.conftest import Source, leftovers
from virtmgr.domain.errors import ImageError, StorageError
from virtmgr.domain.image import Blob, Disk, ImageManifest, ImageType
from virtmgr.drivers.storage.local import LocalStorage

CONTENT = os.urandom(100_000)


def disk(source: Source, size: int = len(CONTENT)) -> ImageManifest:
    blob = Blob(digest=source.add(CONTENT), size=size)
    return ImageManifest(
        type=ImageType.DISK, disk=Disk(blob=blob, format="qcow2", virtual_size=size)
    )


def fetch(storage: LocalStorage, source: Source, manifest: ImageManifest) -> Path | None:
    return storage.ensure_image("image", manifest, source, lambda *_: None).disk


def test_resumes_where_it_was_cut(storage: LocalStorage, source: Source) -> None:
    manifest = disk(source)
    source.cut = 40_960
    with pytest.raises(ImageError):
        fetch(storage, source, manifest)
    source.cut = None
    path = fetch(storage, source, manifest)
    assert path is not None
    assert path.read_bytes() == CONTENT
    assert [offset for _, offset in source.fetches] == [0, 40_960]
    assert path.stat().st_mode & 0o777 == 0o444
    for parent in (path.parent, path.parent.parent):
        assert parent.stat().st_mode & 0o777 == 0o711


def test_is_fetched_once_and_reports_progress(storage: LocalStorage, source: Source) -> None:
    manifest = disk(source)
    for _ in range(2):
        seen: list[tuple[int, int]] = []
        storage.ensure_image("image", manifest, source, lambda *now: seen.append(now))  # noqa: B023
        assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(source.fetches) == 1


def test_a_blob_that_was_damaged_is_fetched_again(storage: LocalStorage, source: Source) -> None:
    manifest = disk(source)
    path = fetch(storage, source, manifest)
    assert path is not None
    for damage in (CONTENT[:-1] + b"?", CONTENT[:10]):
        path.chmod(0o644)
        path.write_bytes(damage)
        assert fetch(storage, source, manifest) == path
        assert path.read_bytes() == CONTENT
    assert len(source.fetches) == 3
    path.touch()  # only touched: it is verified, and not fetched
    assert fetch(storage, source, manifest) == path
    assert len(source.fetches) == 3


@pytest.mark.parametrize("change", [b"", b"x" * 10])
def test_wrong_content_is_refused(change: bytes, storage: LocalStorage, source: Source) -> None:
    manifest = disk(source)
    assert manifest.disk is not None
    source.blobs[manifest.disk.blob.digest] = (change + CONTENT)[: len(CONTENT) - 1] + change + b"?"
    with pytest.raises(ImageError) as failure:
        fetch(storage, source, manifest)
    assert failure.value.code == "digest_mismatch"
    assert leftovers(storage) == []


def test_too_short_is_refused_and_kept_for_resuming(storage: LocalStorage, source: Source) -> None:
    manifest = disk(source, size=len(CONTENT) + 5)
    with pytest.raises(ImageError) as failure:
        fetch(storage, source, manifest)
    assert failure.value.code == "image_truncated"
    assert storage.collect_images([]) > 0
    assert leftovers(storage) == []


def test_damaged_part_is_noticed(storage: LocalStorage, source: Source) -> None:
    manifest = disk(source)
    assert manifest.disk is not None
    part = storage.directory / "parts/blobs" / manifest.disk.blob.digest[7:]
    part.write_bytes(b"junk of a power cut")
    with pytest.raises(ImageError):
        fetch(storage, source, manifest)
    path = fetch(storage, source, manifest)
    assert path is not None
    assert path.read_bytes() == CONTENT


def test_volumes(storage: LocalStorage) -> None:
    path = storage.ensure_volume("0190-a", 10 * 2**20)
    assert path.stat().st_size == 10 * 2**20
    assert path.stat().st_blocks == 0
    path.write_bytes(b"data")
    assert storage.ensure_volume("0190-a", 20 * 2**20).stat().st_size == 20 * 2**20
    assert storage.ensure_volume("0190-a", 2**20).stat().st_size == 20 * 2**20
    assert path.read_bytes()[:4] == b"data"
    assert storage.volumes() == ("0190-a",)
    storage.remove_volume("0190-a")
    storage.remove_volume("0190-a")
    assert storage.volumes() == ()


def test_a_copy_of_a_volume(storage: LocalStorage) -> None:
    storage.ensure_volume("a", 10 * 2**20)
    with storage.ensure_volume("a", 10 * 2**20).open("r+b") as file:
        file.seek(5 * 2**20)
        file.write(b"data")
    for _ in range(2):
        storage.copy_volume("a", "b")
        copy = storage.ensure_volume("b", 10 * 2**20)
        assert copy.read_bytes() == storage.ensure_volume("a", 0).read_bytes()
        assert copy.stat().st_blocks * 512 < 2**20
        copy.write_bytes(b"other")
    with pytest.raises(StorageError, match="cannot copy volume missing"):
        storage.copy_volume("missing", "b")
    assert storage.volumes() == ("a", "b")


@pytest.mark.parametrize("name", ["../x", "", ".", "a/b", "-a", "a" * 80])
def test_volume_ids_that_are_none(name: str, storage: LocalStorage) -> None:
    with pytest.raises(StorageError):
        storage.ensure_volume(name, 1)


def test_volume_too_large_for_the_file_system(storage: LocalStorage) -> None:
    with pytest.raises(StorageError, match="cannot make volume"):
        storage.ensure_volume("big", 2**62)


def test_pool(storage: LocalStorage) -> None:
    (pool,) = storage.pools()
    assert pool.name == "default"
    assert 0 < pool.used <= pool.capacity
