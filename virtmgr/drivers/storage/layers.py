"""Unpacked layers, one directory per diff_id, shared by all images and containers."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import virtmgr
from virtmgr.domain.compression import Compression, decompressed
from virtmgr.domain.errors import HostError, ImageError
from virtmgr.domain.image import Layer
from virtmgr.domain.layer import LayerLimits
from virtmgr.drivers.storage.blobs import hex_of
from virtmgr.drivers.storage.files import (
    disk_errors,
    disk_usage,
    remove_tree,
    storage_error,
    sync_directory,
    sync_file_system,
)
from virtmgr.drivers.storage.locking import locked

_PIECE = 1024**2
_UNPACKER = [sys.executable, "-s", "-P", "-m", "virtmgr.drivers.storage.unpacker"]
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PYTHONPATH": str(Path(virtmgr.__file__).parents[1])}


class LayerStore:
    """Directories ``directory/HEX``; those being unpacked or removed are in ``parts``."""

    def __init__(self, *, directory: Path, parts: Path, locks: Path, limits: LayerLimits) -> None:
        self._directory = directory
        self._parts = parts
        self._locks = locks
        self._limits = limits

    def path(self, diff_id: str) -> Path:
        return self._directory / hex_of(diff_id)

    def has(self, diff_id: str) -> bool:
        return self.path(diff_id).is_dir()

    def ensure(self, layer: Layer, fetch: Callable[[], Path]) -> Path:
        """The layer's directory, unpacked from the blob that ``fetch`` gets if it is missing.

        :raises ImageError: the layer is refused, or is not what its diff_id says.
        :raises StorageError: the disk is full or fails.
        """
        path = self.path(layer.diff_id)
        with locked(self._locks / f"layer-{path.name}"):
            if not path.is_dir():
                blob = fetch()
                with disk_errors(f"unpack layer {layer.diff_id}"):
                    self._unpack(layer, blob, path)
        return path

    def remove(self, name: str) -> int:
        """Remove layer ``name`` (hexadecimal) and its part unless in use; bytes freed."""
        freed = 0
        with locked(self._locks / f"layer-{name}", wait=False) as mine:
            if not mine:
                return 0
            part = self._parts / name
            for path in (part, self._directory / name):
                if path.exists():
                    freed += disk_usage(path)
                    if path != part:
                        path.rename(part)  # half a layer must never be seen under its name
                    remove_tree(part)
        return freed

    def names(self) -> set[str]:
        """Hexadecimal diff_ids of what is there, whole or in part."""
        return {path.name for root in (self._directory, self._parts) for path in root.iterdir()}

    def _unpack(self, layer: Layer, blob: Path, path: Path) -> None:
        part = self._parts / path.name
        remove_tree(part)
        part.mkdir(0o755)
        part.chmod(0o755)
        try:
            diff_id = self._extract(layer, blob, part)
            if diff_id != layer.diff_id:
                raise ImageError(
                    f"layer {layer.digest} is refused: its content has diff_id {diff_id}, "
                    f"and the image says {layer.diff_id}",
                    code="digest_mismatch",
                )
            sync_file_system(part)
        except BaseException:
            remove_tree(part)
            raise
        part.rename(path)
        sync_directory(self._directory)

    def _extract(self, layer: Layer, blob: Path, target: Path) -> str:
        limit = self._limits.uncompressed(layer.size)
        digest = hashlib.sha256()
        with subprocess.Popen(
            [*_UNPACKER, str(target), str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
        ) as process:
            assert process.stdin is not None
            try:
                with suppress(BrokenPipeError):  # it refused; its report says why
                    for piece in decompressed(
                        _chunks(blob), Compression(layer.compression), limit=limit
                    ):
                        digest.update(piece)
                        process.stdin.write(piece)
                out, err = process.communicate()
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise _failure(layer, process.returncode, out, err)
        return f"sha256:{digest.hexdigest()}"


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_PIECE):
            yield chunk


def _failure(layer: Layer, returncode: int, out: bytes, err: bytes) -> HostError:
    attempt = f"unpack layer {layer.digest}"
    try:
        report = json.loads(out)
    except ValueError:
        last = err.decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
        return ImageError(f"cannot {attempt}: the unpacker ended with {returncode}: {last[0]}")
    if report["code"] == "storage_error":
        code = report["errno"]
        if code in (errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL):
            return ImageError(f"cannot {attempt}: {report['error']}", code="image_refused")
        return storage_error(attempt, OSError(code, os.strerror(code)))
    return ImageError(
        f"cannot {attempt}: {report['error']}", code=report["code"], hint=report.get("hint")
    )
