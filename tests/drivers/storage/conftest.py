"""A storage in a temporary directory, and a source of blobs that can be watched and cut."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import ContainerConfig, ImageManifest, ImageType, Layer
from virtmgr.domain.layer import LayerLimits
from virtmgr.drivers.storage.local import LocalStorage


class Source:
    """Blobs in memory; ``cut`` ends a fetch after so many bytes, ``tamper`` changes them."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.fetches: list[tuple[str, int]] = []
        self.cut: int | None = None
        self.gate = threading.Event()
        self.gate.set()

    def add(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def fetch(self, digest: str, offset: int) -> Iterator[bytes]:
        self.fetches.append((digest, offset))
        self.gate.wait(10)
        content = self.blobs[digest][offset:]
        for start in range(0, len(content), 4096):
            if self.cut is not None and start >= self.cut:
                raise ImageError("the connection broke")
            yield content[start : start + 4096]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    limits = LayerLimits(size=2**24, free_size=2**22, members=500)
    return LocalStorage(directory=tmp_path / "pool", limits=limits)


def tar_of(*members: tuple[str, Mapping[str, object]]) -> bytes:
    """A tar of ``(name, attributes of TarInfo and content)``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, attributes in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            content = attributes.get("content", b"")
            assert isinstance(content, bytes)
            for key, value in attributes.items():
                if key != "content":
                    setattr(info, key, value)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def container(source: Source, *tars: bytes, compress: object = None) -> ImageManifest:
    layers = []
    for tar in tars:
        stored = compress(tar) if callable(compress) else tar
        name = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}.get(stored[:2], "none")
        layers.append(
            Layer(
                digest=source.add(stored),
                size=len(stored),
                diff_id=f"sha256:{hashlib.sha256(tar).hexdigest()}",
                compression=name,
            )
        )
    return ImageManifest(
        type=ImageType.CONTAINER, layers=tuple(layers), config=ContainerConfig.model_validate({})
    )


def leftovers(storage: LocalStorage) -> list[Path]:
    """Everything in the pool but its own directories."""
    fixed = {"blobs", "layers", "volumes", "arrivals", "locks"}
    fixed |= {"parts", "parts/blobs", "parts/layers"}
    return [
        path
        for path in storage.directory.rglob("*")
        if str(path.relative_to(storage.directory)) not in fixed
    ]
