"""Building: chooses the recipe."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from virtmgr.domain.errors import InvalidRequest
from virtmgr.domain.image import ImageManifest
from virtmgr.domain.workload import Kind
from virtmgr.images import busybox, debian
from virtmgr.images.blobs import BlobStore
from virtmgr.images.limits import ImportLimits
from virtmgr.images.task import Task
from virtmgr.ports.images import BuildRequest, Cancelled, ImageProgress

_SUITE = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Builder:
    """Implements ``ImageBuilder``. ``cache`` keeps downloaded packages between builds."""

    def __init__(
        self, *, store: BlobStore, cache: Path, limits: ImportLimits | None = None
    ) -> None:
        self._store = store
        self._cache = cache
        self._limits = limits or ImportLimits()

    def build(
        self, request: BuildRequest, progress: ImageProgress, cancelled: Cancelled
    ) -> ImageManifest:
        _check(request)
        task = Task(progress, cancelled)
        if request.distribution == "debian":
            return debian.build(
                request, store=self._store, cache=self._cache, limits=self._limits, task=task
            )
        if request.kind is Kind.VM:
            return busybox.build_vm(store=self._store, cache=self._cache, task=task)
        return busybox.build_container(
            init=request.init, store=self._store, limits=self._limits, task=task
        )


def _check(request: BuildRequest) -> None:
    if request.distribution not in ("debian", "busybox"):
        raise InvalidRequest(
            f"{request.distribution!r} cannot be built",
            field="distribution",
            hint="debian and busybox can.",
        )
    if _SUITE.fullmatch(request.suite) is None:
        raise InvalidRequest(f"{request.suite!r} is no suite of a distribution", field="suite")
    if request.init not in (None, "app", "system"):
        raise InvalidRequest(f"init is app or system, not {request.init!r}", field="init")
    if request.kind is Kind.VM and request.init is not None:
        raise InvalidRequest("init is for containers", field="init")
    if request.mirror is not None and (
        urlsplit(request.mirror).scheme not in ("http", "https") or re.search(r"\s", request.mirror)
    ):
        raise InvalidRequest(f"{request.mirror!r} is no http(s) address", field="mirror")
