"""Ports to images on the control plane: the store of blobs, importing and building."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from virtmgr.domain.image import ImageManifest, ImageType
from virtmgr.domain.workload import Kind

ImageProgress = Callable[[int, int | None, str], None]
"""Called with bytes (or steps) done, how many in all if known, and what is being done now."""

Cancelled = Callable[[], bool]
"""Asked often while work goes on; once it says True, the work ends with ``image_cancelled``."""


@dataclass(frozen=True)
class ImportRequest:
    """What to make an image from.

    ``source`` says where it comes from: ``docker://HOST/NAME:TAG`` (a registry), an ``http(s)``
    URL, ``simplestreams:URL#ALIAS`` (an image server of LXD or Incus), or, where ``path`` is given,
    a name for people only: ``path`` is then an uploaded file (or, for callers on the same machine,
    a directory) whose content decides what it is. With a path, ``source`` may still be
    ``oci:…:TAG`` or ``docker-archive:…:TAG`` to choose among several images in it.
    """

    source: str
    path: Path | None = None
    type: ImageType | None = None  # refused unless the content is of that type
    init: str | None = None  # containers: app | system; by content unless given
    checksum: str | None = None  # sha256:… of the file or download
    architecture: str | None = None  # the control plane's own unless given
    insecure_registry: bool = False  # plain HTTP, or a certificate that nobody vouches for
    credentials: Path | None = None  # for the registry: a private containers-auth.json(5)


@dataclass(frozen=True)
class ImageOffer:
    """What an image server has, to be imported as ``simplestreams:URL#ALIAS``."""

    alias: str
    aliases: tuple[str, ...]  # all of them, that one first
    type: ImageType  # container or disk
    architecture: str  # as uname says it
    version: str
    size: int  # bytes to fetch
    description: str


@dataclass(frozen=True)
class BuildRequest:
    """An image to build from a distribution's packages.

    ``distribution`` is ``debian``, or ``busybox`` (tiny, made of the control plane's own busybox;
    ``suite`` is ignored then, but for the kernel of VMs).
    """

    distribution: str
    suite: str = "bookworm"
    kind: Kind = Kind.CONTAINER
    init: str | None = None  # containers: debian is system; busybox app unless given
    mirror: str | None = None  # the one that the control plane's own apt uses, unless given


@dataclass(frozen=True)
class PublishRequest:
    """What a host sent of a stopped workload's disk (``ports.driver.CanPublish``)."""

    path: Path
    kind: Kind
    base: ImageManifest | None  # what the workload started from
    comment: str  # for the image's history


class ImageImporter(Protocol):
    def import_image(
        self, request: ImportRequest, progress: ImageProgress, cancelled: Cancelled
    ) -> ImageManifest:
        """Check the source, store its blobs and say what it is. The source is not trusted.

        What is refused leaves nothing behind. A crash may leave blobs that no image refers to;
        whoever owns the inventory removes them (``BlobStore`` iterates over all).

        :raises ImageError: it cannot be had, is damaged, or is refused.
        :raises InvalidRequest: the request names what cannot be.
        """
        ...

    def publish(
        self, request: PublishRequest, progress: ImageProgress, cancelled: Cancelled
    ) -> ImageManifest:
        """Add what a workload has on its own disk to what it started from.

        The host is trusted no more than any source, and the same is refused. The blobs of
        ``base`` are not looked at.

        :raises ImageError: it is damaged or refused.
        """
        ...


class ImageBuilder(Protocol):
    def build(
        self, request: BuildRequest, progress: ImageProgress, cancelled: Cancelled
    ) -> ImageManifest:
        """Build it from packages and store its blobs.

        :raises ImageError: a tool failed (its last lines are in the message), or is missing.
        :raises InvalidRequest: the request names what cannot be.
        """
        ...


@dataclass(frozen=True)
class Leftover:
    """A file or directory of an upload or of work that was cut off; ``size`` in bytes."""

    path: Path
    size: int


class BlobStore(Protocol):
    """Content-addressed files of the control plane; digests are ``sha256:…``."""

    def exists(self, digest: str) -> bool: ...

    def size(self, digest: str) -> int:
        """Bytes of the blob.

        :raises NotFound: it is not there.
        """
        ...

    def open(self, digest: str, offset: int = 0) -> BinaryIO:
        """The blob from ``offset`` on, to be closed by the caller.

        :raises NotFound: it is not there.
        """
        ...

    def remove(self, digest: str) -> None:
        """Remove it; no error if it is gone."""
        ...

    def __iter__(self) -> Iterator[str]:
        """Digests of all blobs."""
        ...

    def leftovers(self, before: datetime) -> Iterator[Leftover]:
        """Uploads and scratch files that nobody has written to since ``before``."""
        ...

    def remove_leftover(self, leftover: Leftover) -> None:
        """Remove it; no error if it is gone."""
        ...

    def upload_path(self, upload_id: str) -> Path:
        """Where the API keeps an uploaded file until it is imported; private."""
        ...

    def keep_private(self, upload_id: str, content: bytes) -> None:
        """Write ``content`` to ``upload_path``, whole or not at all."""
        ...
