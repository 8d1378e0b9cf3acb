"""The control plane's content-addressed store: a blob is there whole and verified, or not."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from virtmgr.domain.errors import ImageError, NotFound, StorageError
from virtmgr.domain.image import Blob
from virtmgr.ports.images import Leftover

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PIECE = 1024**2


class BlobStore:
    """Implements ``ports.images.BlobStore``; safe among threads and processes.

    ``directory`` and all in it is private to the user that the control plane runs as.
    """

    def __init__(self, directory: Path) -> None:
        _private(directory)
        self._blobs = _private(directory / "sha256")
        self._uploads = _private(directory / "uploads")
        self._scratch = _private(directory / "scratch")

    def path(self, digest: str) -> Path:
        """The blob's file, whether or not it is there."""
        if _DIGEST.fullmatch(digest) is None:
            raise NotFound(f"{digest!r} is no blob's digest")
        return self._blobs / digest.removeprefix("sha256:")

    def exists(self, digest: str) -> bool:
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def open(self, digest: str, offset: int = 0) -> BinaryIO:
        try:
            file = self.path(digest).open("rb")
        except FileNotFoundError:
            raise _missing(digest) from None
        file.seek(offset)
        return file

    def remove(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        for path in sorted(self._blobs.iterdir()):
            yield f"sha256:{path.name}"

    def leftovers(self, before: datetime) -> Iterator[Leftover]:
        for root in (self._uploads, self._scratch):
            for path in sorted(root.iterdir()):
                try:
                    files = [path, *path.rglob("*")] if path.is_dir() else [path]
                    states = [each.lstat() for each in files]
                except FileNotFoundError:
                    continue  # somebody is at work on it
                if max(state.st_mtime for state in states) < before.timestamp():
                    yield Leftover(path, sum(state.st_blocks * 512 for state in states))

    def remove_leftover(self, leftover: Leftover) -> None:
        if leftover.path.is_dir():
            shutil.rmtree(leftover.path, ignore_errors=True)
        else:
            leftover.path.unlink(missing_ok=True)

    def upload_path(self, upload_id: str) -> Path:
        if re.fullmatch(r"[A-Za-z0-9-]{1,64}", upload_id) is None:
            raise NotFound(f"{upload_id!r} cannot be the id of an upload")
        return self._uploads / upload_id

    def keep_private(self, upload_id: str, content: bytes) -> None:
        with self.scratch() as scratch:
            path = scratch / "private"
            path.touch(0o600)
            path.write_bytes(content)
            path.rename(self.upload_path(upload_id))

    def add(self, chunks: Iterable[bytes], expected: Blob | None = None) -> Blob:
        """Store a stream.

        :raises ImageError: it is not ``expected`` (nothing is stored then).
        """
        with self.writer() as writer:
            for chunk in chunks:
                writer.write(chunk)
                if expected is not None and writer.size > expected.size:
                    break
            return writer.commit(expected)

    def adopt(self, path: Path) -> Blob:
        """Move a file of ``scratch`` into the store."""
        digest = hashlib.sha256()
        for chunk in read_chunks(path):
            digest.update(chunk)
        blob = Blob(digest=f"sha256:{digest.hexdigest()}", size=path.stat().st_size)
        self.keep(path, blob.digest)
        return blob

    def keep(self, path: Path, digest: str) -> None:
        """Move a finished file of ``scratch`` to its place, durably."""
        target = self.path(digest)
        try:
            path.chmod(0o600)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            path.rename(target)
            _sync_directory(target.parent)
        except OSError as error:
            raise StorageError(f"cannot write to the image store: {error.strerror}") from error

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """A blob in the making; it vanishes unless committed."""
        descriptor, name = tempfile.mkstemp(dir=self._scratch)
        writer = BlobWriter(descriptor, Path(name), self)
        try:
            yield writer
        finally:
            writer.close()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private directory on the store's file system, removed in the end."""
        path = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            yield path
        finally:
            shutil.rmtree(path)


class BlobWriter:
    def __init__(self, descriptor: int, path: Path, store: BlobStore) -> None:
        self._file = os.fdopen(descriptor, "wb")
        self._path = path
        self._store = store
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """:raises StorageError: the disk is full or fails."""
        try:
            self._file.write(chunk)
        except OSError as error:
            raise StorageError(f"cannot write to the image store: {error.strerror}") from error
        self._hash.update(chunk)
        self.size += len(chunk)

    def commit(self, expected: Blob | None = None) -> Blob:
        """Make it durable under its digest, unless it is not ``expected``."""
        blob = Blob(digest=f"sha256:{self._hash.hexdigest()}", size=self.size)
        if expected is not None and blob != expected:
            raise ImageError(
                f"blob {expected.digest} of {expected.size} bytes is refused: what came has "
                f"digest {blob.digest} and {blob.size} bytes",
                code="digest_mismatch",
                hint="The source is damaged or has been tampered with.",
            )
        try:
            self._file.flush()
        except OSError as error:
            raise StorageError(f"cannot write to the image store: {error.strerror}") from error
        self._store.keep(self._path, blob.digest)
        return blob

    def close(self) -> None:
        try:
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)


def read_chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, in pieces."""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(PIECE):
            yield chunk


def _private(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _missing(digest: str) -> NotFound:
    return NotFound(
        f"blob {digest} is not in the image store",
        hint="Import the image again.",
    )
