"""Volumes: sparse raw disk files that only ever grow."""

from __future__ import annotations

import os
import re
from pathlib import Path

from virtmgr.domain.errors import StorageError
from virtmgr.drivers import sparse
from virtmgr.drivers.storage.arrivals import link
from virtmgr.drivers.storage.files import disk_errors, sync_directory


class VolumeStore:
    """Files ``directory/ID.raw``."""

    def __init__(self, *, directory: Path) -> None:
        self._directory = directory

    def ensure(self, volume_id: str, size: int) -> Path:
        """The volume's file, made (sparse) or grown to ``size`` bytes; never shrunk.

        :raises StorageError: the disk fails, or cannot hold a file of that size.
        """
        path = self._path(volume_id)
        with disk_errors(f"make volume {volume_id} of {size} bytes"):
            made = not path.exists()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size < size:
                    os.ftruncate(descriptor, size)
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if made:
                sync_directory(self._directory)
        return path

    def copy(self, source_id: str, volume_id: str) -> None:
        """Give a volume the content of another, which nobody writes to; replaces what it had.

        :raises StorageError: the source is not there, or the disk is full or fails.
        """
        with disk_errors(f"copy volume {source_id} to {volume_id}"):
            sparse.copy(self._path(source_id), self._path(volume_id), durable=True)
            sync_directory(self._directory)

    def take_up(self, volume_id: str, file: Path) -> None:
        """Make a file that nobody writes to the volume; replaces what it had.

        :raises StorageError: the disk is full or fails.
        """
        with disk_errors(f"take volume {volume_id} up"):
            link(file, self._path(volume_id))

    def remove(self, volume_id: str) -> None:
        """Remove the volume's file; no error if it is gone."""
        with disk_errors(f"remove volume {volume_id}"):
            self._path(volume_id).unlink(missing_ok=True)
            self._path(volume_id).with_suffix(".raw.partial").unlink(missing_ok=True)

    def ids(self) -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in self._directory.glob("*.raw")))

    def _path(self, volume_id: str) -> Path:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", volume_id) is None:
            raise StorageError(f"{volume_id!r} cannot be the id of a volume")
        return self._directory / f"{volume_id}.raw"
