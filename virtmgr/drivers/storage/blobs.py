"""The host's cache of blobs: fetched once, resumed where a fetch was cut, verified, kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import Blob
from virtmgr.drivers.storage.files import disk_errors, sync_directory
from virtmgr.drivers.storage.locking import locked
from virtmgr.ports.host import BlobSource

_log = structlog.get_logger(__name__)

_PIECE = 1024**2
_VERIFIED = 1  # seconds: the time of change of a blob that was held to its digest and is as it was


def hex_of(digest: str) -> str:
    """The hexadecimal part of ``sha256:…``, which is safe as a file name."""
    return digest.removeprefix("sha256:")


class BlobCache:
    """Read-only files ``directory/HEX``; fetches in progress are ``parts/HEX``."""

    def __init__(self, *, directory: Path, parts: Path, locks: Path) -> None:
        self._directory = directory
        self._parts = parts
        self._locks = locks

    def path(self, digest: str) -> Path:
        return self._directory / hex_of(digest)

    def has(self, blob: Blob) -> bool:
        """Whether the blob is there, whole, and nobody wrote to it since it was verified."""
        try:
            status = self.path(blob.digest).stat()
        except FileNotFoundError:
            return False
        return (status.st_size, status.st_mtime) == (blob.size, _VERIFIED)

    def ensure(self, blob: Blob, source: BlobSource, progress: Callable[[int], None]) -> Path:
        """The blob's file; ``progress`` is called with the bytes that came since the last call.

        :raises ImageError: the source does not have it, or gives something else.
        :raises StorageError: the disk is full or fails.
        """
        path = self.path(blob.digest)
        with locked(self._locks / f"blob-{path.name}"):
            if self.has(blob) or _passes_again(blob, path):
                progress(blob.size)
                return path
            part = self._parts / path.name
            with disk_errors(f"store blob {blob.digest}"):
                self._fetch(blob, source, part, progress)
                part.chmod(0o444)
                os.utime(part, (_VERIFIED, _VERIFIED))
                part.rename(path)
                sync_directory(self._directory)
        return path

    def remove(self, name: str) -> int:
        """Remove blob ``name`` (hexadecimal) and its part unless in use; bytes freed."""
        freed = 0
        with locked(self._locks / f"blob-{name}", wait=False) as mine:
            if mine:
                for path in (self._directory / name, self._parts / name):
                    if path.exists():
                        freed += path.stat().st_blocks * 512
                        path.unlink()
        return freed

    def names(self) -> set[str]:
        """Hexadecimal digests of what is there, whole or in part."""
        return {path.name for root in (self._directory, self._parts) for path in root.iterdir()}

    def _fetch(
        self, blob: Blob, source: BlobSource, part: Path, progress: Callable[[int], None]
    ) -> None:
        with open(part, "a+b") as file:
            os.chmod(part, 0o600)  # noqa: PTH101
            digest = hashlib.sha256()
            done = 0
            file.seek(0)
            while done < blob.size and (piece := file.read(_PIECE)):
                digest.update(piece)
                done += len(piece)
            progress(min(done, blob.size))
            for piece in self._missing(blob, source, done):
                done += len(piece)
                if done > blob.size:
                    break
                file.write(piece)
                digest.update(piece)
                progress(len(piece))
            file.flush()
            os.fsync(file.fileno())
        if done < blob.size:
            raise ImageError(
                f"fetching blob {blob.digest} ended after {done} of {blob.size} bytes",
                code="image_truncated",
                hint="It goes on from there at the next try.",
            )
        if done > blob.size or f"sha256:{digest.hexdigest()}" != blob.digest:
            part.unlink()
            raise ImageError(
                f"blob {blob.digest} is refused: what came is not what its digest says",
                code="digest_mismatch",
                hint="The control plane's copy may be damaged: import the image again.",
            )

    @staticmethod
    def _missing(blob: Blob, source: BlobSource, offset: int) -> Iterator[bytes]:
        return iter(()) if offset >= blob.size else source.fetch(blob.digest, offset)


def _passes_again(blob: Blob, path: Path) -> bool:
    """Whether a file that somebody wrote to still is what its digest says."""
    with disk_errors(f"verify blob {blob.digest}"):
        if not path.exists():
            return False
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if f"sha256:{found}" != blob.digest:
            _log.warning("blob.damaged", blob=blob.digest)
            return False
        os.utime(path, (_VERIFIED, _VERIFIED))
        return True
