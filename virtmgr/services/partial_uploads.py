"""Uploads in parts: a file that comes over several connections, each going on where one broke.

A part file is named by its size and by who uploads what, so that the same user who begins the same
file again finds what has come already. Nothing of it is in the inventory until it is imported.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virtmgr.domain.errors import Conflict, InvalidRequest, NotFound, StorageError
from virtmgr.services.container import Services

LARGEST: Final = 512 * 1024**3
_ID: Final = re.compile(r"part-(\d{1,15})-[0-9a-f]{32}")


def is_part(name: str) -> bool:
    """Whether a file of this name is an upload that no import has taken yet."""
    return _ID.fullmatch(name) is not None


@dataclass(frozen=True)
class PartialUpload:
    """How far an upload is."""

    id: str
    size: int  # bytes of the whole file
    offset: int  # bytes that have come


def begin(services: Services, user_id: str, key: str, size: int) -> PartialUpload:
    """The user's upload of what ``key`` stands for: a new one, or how far the old one is."""
    name = hashlib.sha256(f"{user_id}\0{key}".encode()).hexdigest()[:32]
    id = f"part-{size}-{name}"
    path = services.blobs.upload_path(id)
    with _disk_errors():
        path.touch(0o600)
    return find(services, id)


def find(services: Services, id: str) -> PartialUpload:
    """:raises NotFound: it never began, has expired, or was imported."""
    match = _ID.fullmatch(id)
    with suppress(FileNotFoundError):
        if match is not None:
            offset = services.blobs.upload_path(id).stat().st_size
            return PartialUpload(id, int(match[1]), offset)
    raise NotFound(f"there is no upload {id[:64]!r}", hint="begin it again")


def append(services: Services, id: str, offset: int, pieces: Iterable[bytes]) -> PartialUpload:
    """Add what comes; what came before a connection breaks is kept.

    :raises Conflict: ``offset`` is not where the upload ends, or another request adds to it.
    :raises InvalidRequest: more came than the file has; none of this request is kept.
    :raises StorageError: the disk is full or fails.
    """
    upload = find(services, id)
    with _disk_errors(), _locked(services.blobs.upload_path(id)) as descriptor:
        end = os.fstat(descriptor).st_size
        if offset != end:
            raise Conflict(
                f"the upload goes on at byte {end}, not at {offset}",
                code="upload_offset",
                hint="ask how far it is, and go on there",
                detail={"offset": end},
            )
        for piece in pieces:
            end += len(piece)
            if end > upload.size:
                os.ftruncate(descriptor, offset)
                raise InvalidRequest(f"the upload has more than its {upload.size} bytes")
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    return find(services, id)


def discard(services: Services, id: str) -> None:
    """Remove what has come.

    :raises NotFound: it never began, has expired, or was imported.
    :raises Conflict: a request adds to it.
    """
    find(services, id)
    path = services.blobs.upload_path(id)
    with _disk_errors(), _locked(path):
        path.unlink(missing_ok=True)


def require_whole(services: Services, id: str) -> PartialUpload:
    """:raises Conflict: not all of it has come."""
    upload = find(services, id)
    if upload.offset != upload.size or not upload.size:
        raise Conflict(
            f"{upload.offset} of {upload.size} bytes have come",
            code="upload_incomplete",
            hint="send the rest first",
        )
    return upload


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                "another request adds to this upload", code="upload_busy", hint="try again"
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the upload cannot be stored: {error.strerror or error}",
            hint="free space in the control plane's data directory",
        ) from error
