"""Images: what a workload starts from, as content-addressed blobs and a manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from virtmgr.domain.values import Message, Value

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
"""Content address of a blob, in OCI's form: ``sha256:`` and 64 hexadecimal digits."""


class ImageType(StrEnum):
    """What an image holds, and so which kinds can start from it."""

    CONTAINER = "container"  # layers and a configuration: containers
    DISK = "disk"  # a disk that boots by itself, or by a kernel beside it: VMs
    ISO = "iso"  # a CD: VMs, to boot from or as an additional drive
    KERNEL = "kernel"  # kernel and initial RAM disk, booted directly: VMs


class Layer(Value):
    """One file-system layer, a tar archive that may be compressed (OCI image-spec layer.md)."""

    digest: Digest  # of the blob as it is stored and fetched
    size: int = Field(ge=0)  # bytes of the blob
    diff_id: Digest  # of the uncompressed tar
    compression: str = "none"  # none | gzip | zstd


class ContainerConfig(Value):
    """How a container of this image runs (OCI image-spec config.md), and its init."""

    init: str = Field("app", pattern="^(app|system)$")
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # KEY=value
    workdir: str = "/"
    user: str = ""
    stop_signal: str = "SIGTERM"
    exposed_ports: tuple[str, ...] = ()


class HistoryEntry(Value):
    """One step of how an image was made (OCI image-spec config.md); for people only."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False  # it made no layer


class Blob(Value):
    """A stored file: its address and its size in bytes."""

    digest: Digest
    size: int = Field(ge=0)


class Disk(Value):
    """A disk or CD image file."""

    blob: Blob
    format: str = Field("qcow2", pattern="^(qcow2|raw)$")
    virtual_size: int = Field(ge=0)  # bytes that the guest sees


class Kernel(Value):
    """A directly booted kernel."""

    kernel: Blob
    initrd: Blob | None = None
    command_line: str = ""


class ImageManifest(Message):
    """All that a host needs to make a root from an image: the parts that its type has."""

    type: ImageType
    architecture: str = "x86_64"
    layers: tuple[Layer, ...] = ()  # CONTAINER, lowest first
    config: ContainerConfig | None = None  # CONTAINER
    disk: Disk | None = None  # DISK and ISO
    kernel: Kernel | None = None  # KERNEL; DISK: of one that was published from such a VM
    registry_digest: Digest | None = None  # of the registry's manifest or index that it is of
    history: tuple[HistoryEntry, ...] = ()  # CONTAINER, oldest first

    def blobs(self) -> tuple[Blob, ...]:
        """Every blob that the image refers to."""
        found = [Blob(digest=layer.digest, size=layer.size) for layer in self.layers]
        if self.disk is not None:
            found.append(self.disk.blob)
        if self.kernel is not None:
            found.append(self.kernel.kernel)
            if self.kernel.initrd is not None:
                found.append(self.kernel.initrd)
        return tuple(found)

    def for_host(self) -> ImageManifest:
        """Without what only people want to know."""
        return self.model_copy(update={"history": (), "registry_digest": None})

    @property
    def size(self) -> int:
        """Bytes of all blobs together."""
        return sum(blob.size for blob in self.blobs())


class ImageState(StrEnum):
    IMPORTING = "importing"
    READY = "ready"
    FAILED = "failed"


@dataclass(kw_only=True)
class Image:
    """An image in the inventory. ``manifest`` is there once ``state`` is ``ready``."""

    id: str
    name: str
    type: ImageType | None
    state: ImageState
    source: str  # where it came from, for people: docker://…, file name, build recipe
    manifest: ImageManifest | None
    digest: str | None  # identifies the content as a whole; sha256 of the canonical manifest
    size: int
    aliases: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    failure: str | None = None
    description: str = ""
    protected: bool = False  # not deleted until that is taken away
    created_at: datetime
    version: int = 1
