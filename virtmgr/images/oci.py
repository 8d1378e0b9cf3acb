"""Reading an OCI image layout (image-spec image-layout.md) that nobody vouches for.

Everything is followed from ``index.json`` by digest, and believed only if digest and size match.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from virtmgr.domain.compression import Compression, detect_compression
from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import (
    Blob,
    ContainerConfig,
    Digest,
    HistoryEntry,
    ImageManifest,
    ImageType,
    Layer,
)
from virtmgr.images.blobs import BlobStore
from virtmgr.images.files import read_document, read_regular
from virtmgr.images.limits import ImportLimits
from virtmgr.images.survey import survey_layer, system_config
from virtmgr.images.task import Task

_DEEPEST_INDEX = 4
_MOST_HISTORY = 1024
_LONGEST_HISTORY = 1024  # characters
_REFERENCE = "org.opencontainers.image.ref.name"
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
OCI_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i686": "386",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
_ARCHITECTURES = {oci: name for name, oci in OCI_ARCHITECTURES.items()}


class _Document(BaseModel):
    """What is read from JSON; unknown members are allowed, as the specification demands."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Platform(_Document):
    architecture: str = ""
    os: str = ""


class _Descriptor(_Document):
    media_type: str = Field("", alias="mediaType")
    digest: Digest
    size: int = Field(ge=0)
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None
    urls: tuple[str, ...] | None = None


class _Index(_Document):
    manifests: tuple[_Descriptor, ...] = Field(max_length=1024)


class _Manifest(_Document):
    config: _Descriptor
    layers: tuple[_Descriptor, ...]


class _Process(_Document):
    entrypoint: tuple[str, ...] | None = Field(None, alias="Entrypoint")
    command: tuple[str, ...] | None = Field(None, alias="Cmd")
    env: tuple[str, ...] | None = Field(None, alias="Env")
    workdir: str | None = Field(None, alias="WorkingDir")
    user: str | None = Field(None, alias="User")
    stop_signal: str | None = Field(None, alias="StopSignal")
    exposed_ports: dict[str, Any] | None = Field(None, alias="ExposedPorts")


class _RootFs(_Document):
    diff_ids: tuple[Digest, ...]


class _History(_Document):
    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class _Config(_Document):
    architecture: str = ""
    os: str = "linux"
    config: _Process | None = None
    rootfs: _RootFs
    history: tuple[_History, ...] | None = None


_T = TypeVar("_T", bound=_Document)


@dataclass(frozen=True)
class Wanted:
    """Which image of a layout, and what to make of it."""

    architecture: str  # as uname says it
    strict_architecture: bool = False
    reference: str | None = None
    init: str | None = None


class OciLayout:
    """An image layout in a directory."""

    def __init__(self, directory: Path, *, limits: ImportLimits, task: Task) -> None:
        self._directory = directory
        self._limits = limits
        self._task = task

    def load(self, wanted: Wanted, store: BlobStore) -> ImageManifest:
        """Check everything of the wanted image, then store its layers.

        :raises ImageError: it is not there, damaged, or refused.
        """
        manifest = self._read(_Manifest, self._choose(wanted))
        config = self._read(_Config, manifest.config)
        architecture = _ARCHITECTURES.get(config.architecture, config.architecture)
        self._check_platform(config, architecture, wanted)
        layers, inits = self._survey(manifest.layers, config.rootfs.diff_ids)
        chosen = system_config(inits) if wanted.init == "system" else _app_config(config.config)
        self._task.phase("storing layers", sum(layer.size for layer in layers))
        for layer in layers:
            blob = Blob(digest=layer.digest, size=layer.size)
            store.add(self._task.counted(read_regular(self._path(layer.digest))), blob)
        return ImageManifest(
            type=ImageType.CONTAINER,
            architecture=architecture or wanted.architecture,
            layers=tuple(layers),
            config=chosen,
            history=_history(config.history or ()),
        )

    def _check_platform(self, config: _Config, architecture: str, wanted: Wanted) -> None:
        if config.os != "linux":
            raise _refuse(f"the image is for {config.os[:40]!r}, not for Linux")
        if wanted.strict_architecture and architecture != wanted.architecture:
            raise _refuse(
                f"the image is for {architecture[:40]!r}, and {wanted.architecture} was asked for"
            )

    def _choose(self, wanted: Wanted) -> _Descriptor:
        content = read_document(self._directory / "index.json", self._limits.document)
        index = _parse(_Index, content, "index.json")
        candidates: Sequence[_Descriptor] = index.manifests
        if wanted.reference is not None:
            candidates = [each for each in candidates if _named(each, wanted.reference)]
        for _ in range(_DEEPEST_INDEX):
            chosen = _for_platform(candidates, wanted)
            if chosen.media_type not in _INDEXES:
                return chosen
            candidates = self._read(_Index, chosen).manifests
        raise _refuse("the image's indexes are nested too deep")

    def _survey(
        self, descriptors: Sequence[_Descriptor], diff_ids: Sequence[str]
    ) -> tuple[list[Layer], dict[str, str]]:
        if len(descriptors) != len(diff_ids):
            raise _refuse(
                f"the image is damaged: {len(descriptors)} layers and {len(diff_ids)} diff_ids"
            )
        if not 0 < len(descriptors) <= self._limits.layers:
            raise _refuse(f"the image has {len(descriptors)} layers")
        inits: dict[str, str] = {}
        layers = []
        self._task.phase("checking layers", sum(each.size for each in descriptors))
        for descriptor, diff_id in zip(descriptors, diff_ids, strict=True):
            layers.append(self._survey_layer(descriptor, diff_id, inits))
        return layers, inits

    def _survey_layer(self, descriptor: _Descriptor, diff_id: str, inits: dict[str, str]) -> Layer:
        path = self._path(descriptor.digest)
        if descriptor.urls or "encrypted" in descriptor.media_type:
            raise _refuse("the image has a layer that is foreign or encrypted")
        compression = detect_compression(next(read_regular(path), b""))
        if compression not in (Compression.NONE, Compression.GZIP, Compression.ZSTD):
            raise _refuse(f"a layer is compressed with {compression}, which OCI does not have")
        size = path.stat().st_size
        if size != descriptor.size:
            raise _mismatch(descriptor, f"{size} bytes")
        chunks = self._task.counted(read_regular(path))
        survey = survey_layer(chunks, compression, size, self._limits.layer)
        if survey.diff_id != diff_id:
            raise ImageError(
                f"layer {descriptor.digest} is refused: its content has diff_id {survey.diff_id}, "
                f"and the image says {diff_id}",
                code="digest_mismatch",
            )
        inits |= survey.inits
        return Layer(
            digest=descriptor.digest,
            size=descriptor.size,
            diff_id=diff_id,
            compression=compression.value,
        )

    def _path(self, digest: str) -> Path:
        return self._directory / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def _read(self, model: type[_T], descriptor: _Descriptor) -> _T:
        content = read_document(self._path(descriptor.digest), self._limits.document)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if (digest, len(content)) != (descriptor.digest, descriptor.size):
            raise _mismatch(descriptor, f"digest {digest} and {len(content)} bytes")
        return _parse(model, content, descriptor.digest)


def _mismatch(descriptor: _Descriptor, what: str) -> ImageError:
    return ImageError(
        f"blob {descriptor.digest} of {descriptor.size} bytes is refused: it has {what}",
        code="digest_mismatch",
    )


def _refuse(why: str) -> ImageError:
    return ImageError(why, code="image_refused")


def _parse(model: type[_T], content: bytes, what: str) -> _T:
    try:
        return model.model_validate(json.loads(content))
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise _refuse(f"the image is damaged: {what} cannot be read: {why[:200]}") from error


def _named(descriptor: _Descriptor, reference: str) -> bool:
    return (descriptor.annotations or {}).get(_REFERENCE) == reference


def _for_platform(candidates: Sequence[_Descriptor], wanted: Wanted) -> _Descriptor:
    """The one for the architecture; where no platform is said, there must be just one."""
    plain = [each for each in candidates if each.platform is None]
    oci = OCI_ARCHITECTURES.get(wanted.architecture, wanted.architecture)
    fitting = [
        each
        for each in candidates
        if each.platform and (each.platform.os, each.platform.architecture) == ("linux", oci)
    ]
    found = fitting or plain or (list(candidates) if not wanted.strict_architecture else [])
    if not found:
        raise _refuse(
            f"there is no image{f' {wanted.reference}' if wanted.reference else ''} "
            f"for linux/{oci} in it"
        )
    if not fitting and len(found) > 1:
        names = sorted((each.annotations or {}).get(_REFERENCE, each.digest) for each in found)
        raise ImageError(
            f"there are several images in it: {', '.join(repr(name[:80]) for name in names[:10])}",
            code="image_refused",
            hint="Say which one: append its tag to the source (oci:NAME:TAG).",
        )
    return found[0]


def _history(entries: Sequence[_History]) -> tuple[HistoryEntry, ...]:
    return tuple(
        HistoryEntry(
            created=_readable(entry.created),
            created_by=_readable(entry.created_by),
            comment=_readable(entry.comment),
            empty_layer=bool(entry.empty_layer),
        )
        for entry in entries[:_MOST_HISTORY]
    )


def _readable(text: str | None) -> str:
    kept = (text or "")[:_LONGEST_HISTORY]
    return "".join(char if char.isprintable() else " " for char in kept)


def _is_text(text: str) -> bool:
    return "\0" not in text and not re.search("[\ud800-\udfff]", text)


def _app_config(process: _Process | None) -> ContainerConfig:
    process = process or _Process.model_validate({})
    signal = process.stop_signal or "SIGTERM"
    if re.fullmatch(r"[A-Z0-9+-]{1,16}", signal) is None:
        raise _refuse(f"the image's stop signal {signal[:40]!r} is none")
    workdir = process.workdir or "/"
    config = ContainerConfig(
        init="app",
        entrypoint=process.entrypoint or (),
        command=process.command or (),
        env=process.env or (),
        workdir=workdir if workdir.startswith("/") else f"/{workdir}",
        user=process.user or "",
        stop_signal=signal,
        exposed_ports=tuple(process.exposed_ports or ()),
    )
    texts = (*config.entrypoint, *config.command, *config.env, *config.exposed_ports)
    if not all(_is_text(text) for text in (*texts, config.workdir, config.user)):
        raise _refuse("the image's configuration has NUL characters or is no text")
    return config
