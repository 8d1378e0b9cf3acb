"""Importing: chooses by source and content, and hands over to who knows the format."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virtmgr.domain import registry
from virtmgr.domain.compression import Compression, decompressed
from virtmgr.domain.errors import ImageError, InvalidRequest
from virtmgr.domain.image import Disk, ImageManifest, ImageType
from virtmgr.domain.workload import Kind
from virtmgr.images.archive import ArchiveKind, extract_kernel, extract_oci, identify
from virtmgr.images.blobs import BlobStore
from virtmgr.images.disk import check_disk
from virtmgr.images.download import download
from virtmgr.images.files import copy_plain, read_regular
from virtmgr.images.kernel import collect_kernel, import_kernel
from virtmgr.images.limits import ImportLimits
from virtmgr.images.oci import OciLayout, Wanted
from virtmgr.images.probe import Format, Probe, probe, read_head
from virtmgr.images.publishing import add_layer, on_own_kernel
from virtmgr.images.rootfs import import_root_fs
from virtmgr.images.simplestreams import (
    LARGEST_METADATA,
    SCHEME,
    choose,
    fetch_offers,
    file_url,
    split_source,
)
from virtmgr.images.skopeo import Access, archive_source, copy_to_layout, resolve
from virtmgr.images.squashfs import convert_to_tar
from virtmgr.images.task import Task
from virtmgr.ports.images import Cancelled, ImageProgress, ImportRequest, PublishRequest

_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
_TAGGED = re.compile(r"(?:oci|oci-archive|docker-archive):[^:]*:(.+)")


@dataclass(frozen=True)
class Registries:
    """What the installation says of registries."""

    mirrors: tuple[registry.Mirror, ...] = ()
    credentials: Path | None = None  # containers-auth.json(5), where there is one


class Importer:
    """Implements ``ImageImporter``."""

    def __init__(
        self,
        *,
        store: BlobStore,
        limits: ImportLimits | None = None,
        registries: Registries | None = None,
    ) -> None:
        self._store = store
        self._registries = registries or Registries()
        self._limits = limits or ImportLimits()

    def import_image(
        self, request: ImportRequest, progress: ImageProgress, cancelled: Cancelled
    ) -> ImageManifest:
        _check(request)
        with self._store.scratch() as scratch:
            task = Task(progress, cancelled)
            work = _Import(request, scratch, self._store, self._limits, self._registries, task)
            return work.run()

    def publish(
        self, request: PublishRequest, progress: ImageProgress, cancelled: Cancelled
    ) -> ImageManifest:
        if request.kind is Kind.CONTAINER:
            task = Task(progress, cancelled)
            return add_layer(request, store=self._store, limits=self._limits, task=task)
        disk = self.import_image(
            ImportRequest(source="published", path=request.path, type=ImageType.DISK),
            progress,
            cancelled,
        )
        return on_own_kernel(disk, request.base)


class _Import:
    """One import, with a private directory of its own."""

    def __init__(
        self,
        request: ImportRequest,
        scratch: Path,
        store: BlobStore,
        limits: ImportLimits,
        places: Registries,
        task: Task,
    ) -> None:
        self._request = request
        self._places = places
        self._scratch = scratch
        self._store = store
        self._limits = limits
        self._task = task
        self._architecture = request.architecture or os.uname().machine

    def run(self) -> ImageManifest:
        source, path = self._request.source, self._request.path
        if path is not None:
            if path.is_dir():
                return self._directory(path)
            return self._file(path, self._request.checksum)
        if source.startswith(registry.SCHEME):
            return self._registry(registry.parse_reference(source))
        if source.startswith(SCHEME):
            return self._image_server(source)
        return self._file(self._download(source), self._request.checksum)

    def _image_server(self, source: str) -> ImageManifest:
        address, alias = split_source(source)
        offers = fetch_offers(address, self._scratch, self._task)
        offer = choose(offers, alias, self._architecture, self._request.type)
        path = self._download(file_url(address, offer.file))
        if offer.combined is not None:
            metadata = self._scratch / "metadata"
            url = file_url(address, offer.combined.metadata)
            download(url, metadata, limit=LARGEST_METADATA, task=self._task)
            self._verify_checksum(f"sha256:{offer.combined.sha256}", metadata, path)
        return self._file(path, f"sha256:{offer.file.sha256}")

    def _download(self, url: str) -> Path:
        target = self._scratch / "download"
        download(url, target, limit=self._limits.file, task=self._task)
        return target

    def _directory(self, path: Path) -> ImageManifest:
        if (path / "oci-layout").exists():
            self._require(ImageType.CONTAINER)
            return self._layout(path)
        self._require(ImageType.KERNEL)
        collect_kernel(path, self._scratch / "kernel-parts", limit=self._limits.kernel)
        return self._kernel()

    def _file(self, path: Path, checksum: str | None) -> ImageManifest:
        if checksum is not None:
            self._verify_checksum(checksum, path)
        found = probe(path)
        if found.format is Format.SQUASHFS:
            return self._squashfs(path, found.compression)
        if found.format is Format.TAR:
            return self._archive(path, found.compression)
        if found.format is Format.UNKNOWN and self._request.type is ImageType.DISK:
            found = Probe(Format.RAW, found.compression)
        if found.format in (Format.QCOW2, Format.RAW, Format.ISO):
            return self._disk(path, found)
        if found.format is Format.KERNEL:
            self._require(ImageType.KERNEL)
            (self._scratch / "kernel-parts").mkdir()
            self._copy(path, found.compression, "kernel-parts/kernel", self._limits.kernel)
            return self._kernel()
        raise ImageError(
            "the file is neither an archive, nor a disk, CD or kernel",
            code="image_unknown",
            hint="A disk without a boot sector is taken if its format is said to be raw.",
        )

    def _squashfs(self, path: Path, compression: Compression) -> ImageManifest:
        self._require(ImageType.CONTAINER)
        plain = self._copy(path, compression, "squashfs", self._limits.file)
        target = self._scratch / "root.tar"
        convert_to_tar(plain, target, limits=self._limits, task=self._task)
        return self._root_fs(target, Compression.NONE)

    def _archive(self, path: Path, compression: Compression) -> ImageManifest:
        kind = identify(self._plain(path, compression))
        self._task.phase(f"reading the {kind}", path.stat().st_size)
        if kind is ArchiveKind.KERNEL:
            self._require(ImageType.KERNEL)
            parts = self._scratch / "kernel-parts"
            extract_kernel(self._plain(path, compression), parts, limit=self._limits.kernel)
            return self._kernel()
        self._require(ImageType.CONTAINER)
        if kind is ArchiveKind.OCI:
            layout = self._scratch / "layout"
            extract_oci(self._plain(path, compression), layout, limit=self._limits.file)
            return self._layout(layout)
        if kind is ArchiveKind.DOCKER:
            plain = self._scratch / "archive.tar"
            copy_plain(
                self._plain(path, compression), Compression.NONE, plain, limit=self._limits.file
            )
            return self._skopeo(archive_source(plain, self._tag()), Access())
        return self._root_fs(path, compression)

    def _root_fs(self, path: Path, compression: Compression) -> ImageManifest:
        return import_root_fs(
            path,
            compression,
            init=self._request.init,
            architecture=self._architecture,
            store=self._store,
            limits=self._limits,
            task=self._task,
        )

    def _registry(self, reference: registry.Reference) -> ImageManifest:
        self._require(ImageType.CONTAINER)
        *mirrors, origin = registry.places(reference, self._places.mirrors)
        for place, insecure in mirrors:
            with suppress(ImageError):
                return self._from_registry(place, insecure)
            self._task.check()
        return self._from_registry(origin[0], self._request.insecure_registry)

    def _from_registry(self, reference: registry.Reference, insecure: bool) -> ImageManifest:
        own = self._places.credentials
        stored = own if own is not None and own.exists() else None
        access = Access(insecure, self._request.credentials or stored)
        found = resolve(reference, access, self._limits, self._task)
        manifest = self._skopeo(str(found), access)
        return manifest.model_copy(update={"registry_digest": found.digest})

    def _skopeo(self, source: str, access: Access) -> ImageManifest:
        self._require(ImageType.CONTAINER)
        layout = self._scratch / "copied"
        copy_to_layout(
            source,
            layout,
            architecture=self._architecture,
            access=access,
            limits=self._limits,
            task=self._task,
        )
        return self._layout(layout, reference="image")

    def _layout(self, path: Path, reference: str | None = None) -> ImageManifest:
        wanted = Wanted(
            architecture=self._architecture,
            strict_architecture=self._request.architecture is not None,
            reference=reference or self._tag(),
            init=self._request.init,
        )
        return OciLayout(path, limits=self._limits, task=self._task).load(wanted, self._store)

    def _disk(self, path: Path, found: Probe) -> ImageManifest:
        type_ = ImageType.ISO if found.format is Format.ISO else ImageType.DISK
        self._require(type_)
        self._task.phase("copying the disk", path.stat().st_size)
        file = self._copy(path, found.compression, "disk", self._limits.file)
        size = check_disk(file, found.format, read_head(file), self._limits, self._task)
        self._task.phase("storing the disk")
        return ImageManifest(
            type=type_,
            architecture=self._architecture,
            disk=Disk(
                blob=self._store.adopt(file),
                format="qcow2" if found.format is Format.QCOW2 else "raw",
                virtual_size=size,
            ),
        )

    def _kernel(self) -> ImageManifest:
        return import_kernel(
            self._scratch / "kernel-parts",
            architecture=self._architecture,
            store=self._store,
            limits=self._limits,
            task=self._task,
        )

    def _plain(self, path: Path, compression: Compression) -> Iterator[bytes]:
        limit = self._limits.archive(path.stat().st_size)
        return decompressed(self._task.counted(read_regular(path)), compression, limit=limit)

    def _copy(self, path: Path, compression: Compression, name: str, limit: int) -> Path:
        """An uncompressed private copy, which is what is checked and then stored."""
        target = self._scratch / name
        if compression is Compression.NONE and path.parent == self._scratch:
            return path.rename(target)
        copy_plain(self._task.counted(read_regular(path)), compression, target, limit=limit)
        return target

    def _verify_checksum(self, checksum: str, *paths: Path) -> None:
        """Of a file, or of several as if they were one."""
        self._task.phase("verifying the checksum", sum(path.stat().st_size for path in paths))
        digest = hashlib.sha256()
        for path in paths:
            for chunk in self._task.counted(read_regular(path)):
                digest.update(chunk)
        if f"sha256:{digest.hexdigest()}" != checksum:
            what = "file has" if len(paths) == 1 else "file and its metadata together have"
            raise ImageError(
                f"the {what} checksum sha256:{digest.hexdigest()}, and {checksum} was expected",
                code="digest_mismatch",
                hint="It is damaged, or not the file that the checksum is of.",
            )

    def _require(self, type_: ImageType) -> None:
        if self._request.type not in (None, type_):
            raise ImageError(
                f"this is a {type_} image, and {self._request.type} was asked for",
                code="image_refused",
            )

    def _tag(self) -> str | None:
        found = _TAGGED.fullmatch(self._request.source)
        return found[1] if found else None


def _check(request: ImportRequest) -> None:
    if request.init not in (None, "app", "system"):
        raise InvalidRequest(f"init is app or system, not {request.init!r}", field="init")
    if request.checksum is not None and _CHECKSUM.fullmatch(request.checksum) is None:
        raise InvalidRequest("a checksum is sha256: and 64 digits of 0-9a-f", field="checksum")
    if request.source.startswith(SCHEME):
        split_source(request.source)
    if request.checksum is not None and request.source.startswith(("docker://", SCHEME)):
        raise InvalidRequest(
            "an image of a registry or an image server has no checksum of its own",
            field="checksum",
            hint="Pin it by digest: docker://HOST/NAME@sha256:DIGEST.",
        )
    schemes = ("docker://", "http://", "https://", SCHEME)
    if request.path is None and not request.source.startswith(schemes):
        raise InvalidRequest(
            f"{request.source!r} is no registry reference, http(s) address or image server's image",
            field="source",
            hint="Write docker://HOST/NAME:TAG, https://… or simplestreams:https://HOST#ALIAS; "
            "files are uploaded.",
        )
