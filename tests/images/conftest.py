"""A store, an importer, and archives to try them with."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from virtmgr.domain.image import ImageManifest
from virtmgr.domain.layer import LayerLimits
from virtmgr.images.blobs import BlobStore
from virtmgr.images.importer import Importer
from virtmgr.images.limits import ImportLimits
from virtmgr.ports.images import ImportRequest

Import = Callable[..., ImageManifest]


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


@pytest.fixture
def do_import(store: BlobStore) -> Import:
    """Import a path or a source; small limits, so that bombs need not be large."""
    limits = ImportLimits(
        file=2**28, virtual_size=2**40, layer=LayerLimits(size=2**26, free_size=2**22, members=2000)
    )
    importer = Importer(store=store, limits=limits)

    def run(path: Path | None = None, source: str = "test", **more: object) -> ImageManifest:
        request = ImportRequest(source=source, path=path, **more)  # type: ignore[arg-type]
        return importer.import_image(request, lambda *_: None, lambda: False)

    return run


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def member(
    name: str,
    content: bytes = b"",
    type_: bytes = tarfile.REGTYPE,
    link: str = "",
    uid: int = 0,
    device: tuple[int, int] = (0, 0),
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.uid = type_, link, uid
    info.mode = 0o755
    info.devmajor, info.devminor = device
    return info, content


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class LayoutWriter:
    """Writes OCI layouts, sound or not."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs/sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, content: bytes, **more: object) -> dict[str, object]:
        digest = digest_of(content)
        (self.directory / "blobs/sha256" / digest[7:]).write_bytes(content)
        return {"digest": digest, "size": len(content), **more}

    def image(
        self,
        layers: list[bytes],
        *,
        diff_ids: list[str] | None = None,
        architecture: str = "amd64",
        history: list[dict[str, object]] | None = None,
        **config: object,
    ) -> dict[str, object]:
        described = [
            self.blob(layer, mediaType="application/vnd.oci.image.layer.v1.tar") for layer in layers
        ]
        content = {
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "history": history,
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest_of(x) for x in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(
                json.dumps(content).encode(), mediaType="application/vnd.oci.image.config.v1+json"
            ),
            "layers": described,
        }
        return self.blob(
            json.dumps(manifest).encode(),
            mediaType="application/vnd.oci.image.manifest.v1+json",
            platform={"os": "linux", "architecture": architecture},
        )

    def index(self, *manifests: dict[str, object]) -> Path:
        index = {"schemaVersion": 2, "manifests": manifests}
        (self.directory / "index.json").write_text(json.dumps(index))
        return self.directory
