"""What a workload has on its own disk, and what it started from, as one image."""

from __future__ import annotations

from datetime import UTC, datetime

from virtmgr.domain.compression import Compression, detect_compression
from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import HistoryEntry, ImageManifest, ImageType, Layer
from virtmgr.images.blobs import BlobStore
from virtmgr.images.files import read_regular
from virtmgr.images.limits import ImportLimits
from virtmgr.images.survey import survey_layer
from virtmgr.images.task import Task
from virtmgr.ports.images import PublishRequest

_COMPRESSIONS = (Compression.NONE, Compression.GZIP, Compression.ZSTD)


def add_layer(
    request: PublishRequest, *, store: BlobStore, limits: ImportLimits, task: Task
) -> ImageManifest:
    """The container image ``base`` and, on top of its layers, the one at ``path``.

    :raises ImageError: the layer is damaged or refused, or there is no such base.
    """
    base, path = request.base, request.path
    if base is None or base.type is not ImageType.CONTAINER:
        raise ImageError(
            "a container's layer needs the image that it lies on", code="image_refused"
        )
    if len(base.layers) >= limits.layers:
        raise ImageError(
            f"the image would have more than {limits.layers} layers", code="image_refused"
        )
    compression = detect_compression(next(read_regular(path), b""))
    if compression not in _COMPRESSIONS:
        raise ImageError(f"the layer is compressed with {compression}", code="image_refused")
    size = path.stat().st_size
    task.phase("checking the layer", size)
    survey = survey_layer(task.counted(read_regular(path)), compression, size, limits.layer)
    task.phase("storing the layer", size)
    blob = store.add(task.counted(read_regular(path)))
    layer = Layer(
        digest=blob.digest, size=blob.size, diff_id=survey.diff_id, compression=compression.value
    )
    entry = HistoryEntry(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by="virtmgr image publish",
        comment=request.comment,
    )
    changes = {
        "layers": (*base.layers, layer),
        "history": (*base.history, entry),
        "registry_digest": None,
    }
    return base.model_copy(update=changes)


def on_own_kernel(disk: ImageManifest, base: ImageManifest | None) -> ImageManifest:
    """A VM's disk; where its VM was booted by a kernel beside it, with that kernel. Pure."""
    if base is None:
        return disk
    return disk.model_copy(update={"kernel": base.kernel, "architecture": base.architecture})
