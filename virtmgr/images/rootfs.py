"""A root file system tarball as an image of one layer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from backports import zstd

from virtmgr.domain.compression import Compression, decompressed
from virtmgr.domain.image import Blob, ContainerConfig, ImageManifest, ImageType, Layer
from virtmgr.images.blobs import BlobStore
from virtmgr.images.files import read_regular
from virtmgr.images.limits import ImportLimits
from virtmgr.images.survey import PATH, Survey, survey_layer, system_config
from virtmgr.images.task import Task

_KEPT = (Compression.GZIP, Compression.ZSTD)
_LEVEL = 3


def import_root_fs(
    path: Path,
    compression: Compression,
    *,
    init: str | None,
    architecture: str,
    store: BlobStore,
    limits: ImportLimits,
    task: Task,
) -> ImageManifest:
    """Check the tarball, then store it: as it is if gzip or zstd, else compressed by zstd.

    ``init`` None: system where it has an init, else app.

    :raises ImageError: it is damaged or refused.
    """
    size = path.stat().st_size
    task.phase("checking the root file system", size)
    survey = survey_layer(task.counted(read_regular(path)), compression, size, limits.layer)
    task.phase("storing the root file system", size)
    chunks = task.counted(read_regular(path))
    if compression in _KEPT:
        blob = store.add(chunks)
    else:
        blob = _store_compressed(chunks, compression, survey, store)
        compression = Compression.ZSTD
    layer = Layer(
        digest=blob.digest, size=blob.size, diff_id=survey.diff_id, compression=compression.value
    )
    return ImageManifest(
        type=ImageType.CONTAINER,
        architecture=architecture,
        layers=(layer,),
        config=_config(init, survey),
    )


def _store_compressed(
    chunks: Iterable[bytes], compression: Compression, survey: Survey, store: BlobStore
) -> Blob:
    compressor = zstd.ZstdCompressor(level=_LEVEL)
    with store.writer() as writer:
        for piece in decompressed(chunks, compression, limit=survey.size):
            writer.write(compressor.compress(piece))
        writer.write(compressor.flush())
        return writer.commit()


def _config(init: str | None, survey: Survey) -> ContainerConfig:
    if init == "system" or (init is None and survey.inits):
        return system_config(survey.inits)
    return ContainerConfig(init="app", command=("/bin/sh",), env=(PATH,))
