"""Receiving what a host sends of a stopped workload's disk. The host is not trusted."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from virtmgr.domain.errors import ImageError, NotFound, StorageError, Unavailable
from virtmgr.domain.image import ImageManifest
from virtmgr.domain.streaming import Channel
from virtmgr.domain.values import format_bytes
from virtmgr.domain.workload import Kind
from virtmgr.ports.images import Cancelled, ImageProgress
from virtmgr.ports.streams import AgentStream
from virtmgr.services import streams
from virtmgr.services.container import Services
from virtmgr.services.partial_uploads import LARGEST
from virtmgr.services.patience import patiently

_LOOK: Final = 0.2

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Exported:
    """Whose disk was received."""

    workload: str  # name
    kind: Kind
    base: ImageManifest | None  # what it started from


def receive(
    services: Services,
    workload_id: str,
    path: Path,
    progress: ImageProgress,
    cancelled: Cancelled,
) -> Exported:
    """Write a workload's export to ``path``, whatever is there; again where a connection breaks.

    :raises NotFound: there is no such workload any more.
    :raises IllegalTransition: it does not rest.
    :raises Unavailable: its host does not answer, after several tries.
    :raises HostError: the host refuses, or fails.
    :raises StorageError: the control plane's disk is full.
    """

    def wait(pause: float, error: Unavailable) -> None:
        log.warning("export_broke", workload=workload_id, error=error.message)
        progress(0, None, f"trying again: {error.message}")
        _wait(pause, cancelled)

    return patiently(lambda: _receive(services, workload_id, path, progress, cancelled), wait)


def _wait(seconds: float, cancelled: Cancelled) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        _check(cancelled)
        time.sleep(_LOOK)


def _check(cancelled: Cancelled) -> None:
    if cancelled():
        raise ImageError("the work on the image was cancelled", code="image_cancelled")


def _receive(
    services: Services,
    workload_id: str,
    path: Path,
    progress: ImageProgress,
    cancelled: Cancelled,
) -> Exported:
    with services.units(read_only=True) as uow:
        workload = uow.workloads.get(workload_id)
        if workload is None:
            raise NotFound("the workload that was to be published is gone")
        image = uow.images.get(workload.image_id) if workload.image_id is not None else None
        exported = Exported(workload.name, workload.kind, image.manifest if image else None)
        route = streams.direct(uow, workload, "export", {})
    stream = services.dial(route.agent_url, route.host_id, route.request)
    try:
        _write(stream, path, progress, cancelled)
    except OSError as error:
        raise StorageError(
            f"what the host sends of workload {exported.workload!r} cannot be stored: "
            f"{error.strerror or error}",
            hint="free space in the control plane's data directory",
        ) from error
    finally:
        stream.close()
    return exported


def _write(stream: AgentStream, path: Path, progress: ImageProgress, cancelled: Cancelled) -> None:
    path.unlink(missing_ok=True)  # of an earlier try, which may go on writing to it unseen
    size = 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while (message := stream.receive()) is not None:
            _check(cancelled)
            channel, content = message
            if channel is Channel.END:
                streams.raise_problem(content)
                return
            size += len(content)
            if size > LARGEST:
                raise ImageError(
                    f"the host sends more than {format_bytes(LARGEST)}", code="image_too_large"
                )
            file.write(content)
            progress(size, None, f"receiving from its host: {format_bytes(size)}")
    raise Unavailable("the host's agent ended before all had come", code="host_unreachable")
