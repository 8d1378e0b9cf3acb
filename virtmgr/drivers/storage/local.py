"""HostStorage on a local directory.

::

    DIRECTORY/            0711, so that QEMU's user reaches single files but lists nothing
      blobs/HEX           0444: disks, ISOs, kernels, kept; layers, until they are unpacked
      layers/HEX/         0700 above: a layer may hold set-user-id files
      volumes/ID.raw      0600
      arrivals/ID/        0700: what came with a workload of another host, until it is taken up
      parts/, locks/      0700: what is in progress
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from virtmgr.domain.image import Blob, ImageManifest, Layer
from virtmgr.domain.layer import LayerLimits
from virtmgr.domain.sync import ObservedPool
from virtmgr.drivers.storage.arrivals import Arrivals
from virtmgr.drivers.storage.blobs import BlobCache, hex_of
from virtmgr.drivers.storage.files import disk_errors
from virtmgr.drivers.storage.layers import LayerStore
from virtmgr.drivers.storage.volumes import VolumeStore
from virtmgr.ports.driver import LocalImage, Luggage
from virtmgr.ports.host import BlobSource, Progress


class LocalStorage:
    """Images and volumes beneath one directory; implements ``HostStorage``.

    Safe among threads and processes: each blob and each layer has a lock of its own.
    """

    def __init__(self, *, directory: Path, limits: LayerLimits | None = None) -> None:
        self.directory = directory
        with disk_errors(f"make the pool's directories in {directory}"):
            _make_directory(directory, 0o711)
            blobs = _make_directory(directory / "blobs", 0o711)
            layers = _make_directory(directory / "layers", 0o700)
            volumes = _make_directory(directory / "volumes", 0o711)
            parts = _make_directory(directory / "parts", 0o700)
            blob_parts = _make_directory(parts / "blobs", 0o700)
            layer_parts = _make_directory(parts / "layers", 0o700)
            locks = _make_directory(directory / "locks", 0o700)
            arrivals = _make_directory(directory / "arrivals", 0o700)
        self._blobs = BlobCache(directory=blobs, parts=blob_parts, locks=locks)
        self._layers = LayerStore(
            directory=layers, parts=layer_parts, locks=locks, limits=limits or LayerLimits()
        )
        self._volumes = VolumeStore(directory=volumes)
        self._arrivals = Arrivals(arrivals)

    def ensure_image(
        self, image_id: str, manifest: ImageManifest, source: BlobSource, progress: Progress
    ) -> LocalImage:
        """Fetch what is missing, verify every digest, unpack layers.

        A layer's blob is removed once it is unpacked. ``image_id`` is not needed: content is
        addressed by digest, so images that share blobs or layers share them here too.
        """
        del image_id
        counter = _Counter(manifest.size, progress)
        layers = [self._ensure_layer(layer, source, counter) for layer in manifest.layers]
        disk = manifest.disk
        kernel = manifest.kernel
        return LocalImage(
            layers=tuple(layers),
            disk=self._ensure_blob(disk.blob if disk else None, source, counter),
            disk_format=disk.format if disk else "qcow2",
            kernel=self._ensure_blob(kernel.kernel if kernel else None, source, counter),
            initrd=self._ensure_blob(kernel.initrd if kernel else None, source, counter),
        )

    def collect_images(self, keep: Iterable[ImageManifest]) -> int:
        """Remove every blob and layer that no manifest in ``keep`` needs; bytes freed.

        ``keep`` must also hold the images of all workloads on the host. What is being fetched
        or unpacked at this moment stays.
        """
        manifests = list(keep)
        blobs = {hex_of(blob.digest) for each in manifests for blob in each.blobs()}
        layers = {hex_of(layer.diff_id) for each in manifests for layer in each.layers}
        with disk_errors(f"remove images in {self.directory}"):
            freed = sum(self._blobs.remove(name) for name in self._blobs.names() - blobs)
            return freed + sum(self._layers.remove(name) for name in self._layers.names() - layers)

    def ensure_volume(self, volume_id: str, size: int) -> Path:
        return self._volumes.ensure(volume_id, size)

    def copy_volume(self, source_id: str, volume_id: str) -> None:
        self._volumes.copy(source_id, volume_id)

    def remove_volume(self, volume_id: str) -> None:
        self._volumes.remove(volume_id)

    def pack(self, luggage: Luggage) -> Iterator[bytes]:
        return self._arrivals.pack(luggage)

    def receive(self, arrival_id: str, stream: BinaryIO, *, limit: int) -> None:
        self._arrivals.receive(arrival_id, stream, limit=limit)

    def arrival(self, arrival_id: str) -> Luggage:
        return self._arrivals.get(arrival_id)

    def arrivals(self) -> tuple[str, ...]:
        return self._arrivals.ids()

    def remove_arrival(self, arrival_id: str) -> None:
        self._arrivals.remove(arrival_id)

    def take_up_volume(self, volume_id: str, file: Path) -> None:
        self._volumes.take_up(volume_id, file)

    def volumes(self) -> tuple[str, ...]:
        return self._volumes.ids()

    def pools(self) -> tuple[ObservedPool, ...]:
        with disk_errors(f"measure the file system of {self.directory}"):
            system = os.statvfs(self.directory)
        capacity = system.f_blocks * system.f_frsize
        used = capacity - system.f_bavail * system.f_frsize
        return (
            ObservedPool(name="default", path=str(self.directory), capacity=capacity, used=used),
        )

    def _ensure_layer(self, layer: Layer, source: BlobSource, counter: _Counter) -> Path:
        if self._layers.has(layer.diff_id):
            counter.add(layer.size)
            return self._layers.path(layer.diff_id)
        blob = Blob(digest=layer.digest, size=layer.size)
        path = self._layers.ensure(layer, lambda: self._blobs.ensure(blob, source, counter.add))
        self._blobs.remove(hex_of(layer.digest))
        return path

    def _ensure_blob(self, blob: Blob | None, source: BlobSource, counter: _Counter) -> Path | None:
        if blob is None:
            return None
        if self._blobs.has(blob):
            counter.add(blob.size)
            return self._blobs.path(blob.digest)
        return self._blobs.ensure(blob, source, counter.add)


class _Counter:
    """Adds up the bytes that have come and reports them."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done = min(self._done + count, self._total)
            self._progress(self._done, self._total)


def _make_directory(path: Path, mode: int) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    return path
