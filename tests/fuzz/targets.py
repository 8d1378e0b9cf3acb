"""The parsers, each as a function of bytes that returns or raises what a defect raises.

``seeds`` are sound inputs to begin with. Inputs that once were trouble lie in ``found/TARGET/``.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backports import zstd

from virtmgr.domain.compression import decompressed, detect_compression
from virtmgr.domain.errors import ImageError
from virtmgr.domain.layer import LayerLimits, LayerRules
from virtmgr.domain.tar import TarReader
from virtmgr.images.archive import extract_kernel, extract_oci, identify
from virtmgr.images.blobs import BlobStore
from virtmgr.images.disk import parse_qcow2
from virtmgr.images.initrd import check_initrd
from virtmgr.images.limits import ImportLimits
from virtmgr.images.oci import OciLayout, Wanted
from virtmgr.images.probe import check_kernel, probe, read_head
from virtmgr.images.simplestreams import choose, parse_index, parse_products
from virtmgr.images.task import Task
from virtmgr.images.tree import Tree

FOUND = Path(__file__).parent / "found"
_LIMIT = 2**20
_LIMITS = ImportLimits(
    file=_LIMIT, kernel=_LIMIT, layer=LayerLimits(size=_LIMIT, free_size=_LIMIT, members=200)
)


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _tree() -> Tree:
    tree = Tree()
    tree.directory("bin")
    tree.file("bin/sh", b"#!", 0o4755)
    tree.link("bin/ash", "sh")
    tree.file("n" * 120, b"a long name")
    tree.character_device("dev/null", 1, 3)
    tree.file("a/.wh..wh..opq", b"")
    return tree


def _boot() -> bytes:
    tree = Tree()
    tree.file("vmlinuz", b"kernel")
    tree.file("initrd.img", b"070701")
    tree.file("cmdline", b"quiet")
    return tree.tar()


def run_tar(data: bytes) -> None:
    rules = LayerRules(_LIMITS.layer)
    reader = TarReader(data[at : at + 700] for at in range(0, len(data), 700))
    for member, content in reader:
        step = rules.admit(member)
        assert ".." not in step.path.split("/")
        assert not step.path.startswith("/")
        for _ in content:
            break


def run_compression(data: bytes) -> None:
    kind = detect_compression(data)
    size = sum(len(piece) for piece in decompressed([data], kind, limit=_LIMIT))
    assert size <= _LIMIT


def run_qcow2(data: bytes) -> None:
    parse_qcow2(data)


def _in_file(run: Callable[[Path, Path], None]) -> Callable[[bytes], None]:
    def run_in_file(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "file"
            path.write_bytes(data)
            run(path, Path(directory))

    return run_in_file


def _run_probe(path: Path, _: Path) -> None:
    probe(path)
    check_kernel(read_head(path), path.stat().st_size)


def _run_initrd(path: Path, _: Path) -> None:
    check_initrd(path, probe(path).compression, limit=_LIMIT)


def _run_archive(path: Path, directory: Path) -> None:
    data = path.read_bytes()
    identify([data])
    with suppress(ImageError):
        extract_kernel([data], directory / "kernel", limit=_LIMIT)
    extract_oci([data], directory / "layout", limit=_LIMIT)
    for root in ("kernel", "layout"):
        for each in (directory / root).rglob("*"):
            assert not each.is_symlink()


_LAYER = _tree().tar()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(content: bytes) -> dict[str, object]:
    return {"digest": _digest(content), "size": len(content)}


def _config() -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}},
        "rootfs": {"diff_ids": [_digest(_LAYER)]},
    }
    return json.dumps(document).encode()


def _manifest(config: bytes) -> bytes:
    document = {"config": _descriptor(config), "layers": [_descriptor(_LAYER)]}
    return json.dumps(document).encode()


def _index(manifest: bytes) -> bytes:
    platform = {"os": "linux", "architecture": "amd64"}
    return json.dumps({"manifests": [{**_descriptor(manifest), "platform": platform}]}).encode()


def _run_layout(path: Path, directory: Path) -> None:
    """``data`` is the index, the manifest or the configuration of a sound layout."""
    data = path.read_bytes()
    config, manifest = _config(), _manifest(_config())
    for index, blobs in (
        (data, (config, manifest)),
        (_index(data), (config, data)),
        (_index(_manifest(data)), (data, _manifest(data))),
    ):
        layout = Path(tempfile.mkdtemp(dir=directory))
        (layout / "blobs/sha256").mkdir(parents=True)
        (layout / "index.json").write_bytes(index)
        for blob in (*blobs, _LAYER):
            (layout / "blobs/sha256" / _digest(blob)[7:]).write_bytes(blob)
        task = Task(lambda *_: None, lambda: False)
        with suppress(ImageError):
            loaded = OciLayout(layout, limits=_LIMITS, task=task).load(
                Wanted("x86_64"), BlobStore(directory / "store")
            )
            loaded.model_dump_json().encode()


def _qcow2() -> bytes:
    fields = (b"QFI\xfb", 3, 0, 0, 16, 2**20, 0, 16, 0x30000, 0x10000, 1, 0, 0)
    header = struct.pack(">4sIQIIQIIQQIIQ", *fields) + struct.pack(">QQQII", 0, 0, 0, 4, 104)
    return header + struct.pack(">II8sII", 0x6803F857, 8, b"features", 0, 0) + bytes(200)


_PRODUCTS = {
    "products": {
        "debian:12:amd64:default": {
            "aliases": "debian/12,debian/bookworm",
            "arch": "amd64",
            "versions": {
                "20260101_05:24": {
                    "items": {
                        "root.squashfs": {
                            "ftype": "squashfs",
                            "path": "images/debian/rootfs.squashfs",
                            "sha256": "0" * 64,
                            "size": 1,
                        }
                    }
                }
            },
        }
    }
}
_STREAMS = {"index": {"images": {"datatype": "image-downloads", "path": "streams/v1/images.json"}}}


def run_simplestreams(data: bytes) -> None:
    with suppress(ImageError):
        for path in parse_index(data):
            assert ".." not in path.split("/")
    offers = parse_products(data)
    choose(offers, "debian/12", "x86_64", None)


_PLAIN = gzip.decompress(_tree().initrd())

TARGETS: dict[str, Target] = {
    "tar": Target(run_tar, (_LAYER,)),
    "compression": Target(
        run_compression,
        tuple(
            compress(_LAYER)
            for compress in (gzip.compress, zstd.compress, lzma.compress, bz2.compress)
        ),
    ),
    "qcow2": Target(run_qcow2, (_qcow2(),)),
    "probe": Target(_in_file(_run_probe), (_qcow2(), _LAYER, gzip.compress(_LAYER), _PLAIN)),
    "initrd": Target(_in_file(_run_initrd), (_PLAIN, _tree().initrd(), _PLAIN + _tree().initrd())),
    "archive": Target(_in_file(_run_archive), (_boot(), _LAYER)),
    "simplestreams": Target(
        run_simplestreams, (json.dumps(_PRODUCTS).encode(), json.dumps(_STREAMS).encode())
    ),
    "layout": Target(
        _in_file(_run_layout), (_index(_manifest(_config())), _manifest(_config()), _config())
    ),
}


def run(name: str, data: bytes) -> None:
    """Parse; only what is no refusal comes out as an exception."""
    with suppress(ImageError):
        TARGETS[name].run(data)


def found(name: str) -> list[Path]:
    """Inputs that once were trouble."""
    return sorted((FOUND / name).glob("*"))
