"""Request bodies that are files: streamed to disk, never held in memory."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flask import Request

from virtmgr.api.parsing import bad_request
from virtmgr.domain.errors import StorageError
from virtmgr.domain.ids import new_id
from virtmgr.services.container import Services

_PIECE: Final = 1024**2


@dataclass(frozen=True)
class Upload:
    """A file that was received whole."""

    id: str
    path: Path
    size: int
    digest: str  # SHA-256, hexadecimal

    def discard(self) -> None:
        """Remove the file; no error if it is gone."""
        self.path.unlink(missing_ok=True)


def receive(services: Services, request: Request) -> Upload:
    """Store the request's body in a private file.

    :raises InvalidRequest: (400) it is empty, or the client went away in its middle.
    :raises StorageError: the disk is full or fails.
    """
    upload_id = new_id()
    path = services.blobs.upload_path(upload_id)
    try:
        size, digest = _store(request, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Upload(upload_id, path, size, digest)


def _store(request: Request, path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(opened, "wb", buffering=0) as file:
        while piece := request.stream.read(_PIECE):
            _write(file.fileno(), piece)
            digest.update(piece)
            size += len(piece)
        os.fsync(file.fileno())
    if size == 0:
        raise bad_request("the upload is empty", hint="send the file as the request's body")
    if request.content_length is not None and size != request.content_length:
        raise bad_request("the upload ended before its Content-Length", hint="send it again")
    return size, digest.hexdigest()


def _write(descriptor: int, piece: bytes) -> None:
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise StorageError(
            f"the upload cannot be stored: {error.strerror}",
            hint="free space in the control plane's data directory",
        ) from error
