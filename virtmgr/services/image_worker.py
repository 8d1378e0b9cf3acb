"""Carries out imports, builds and publishing: takes their operations, and finishes the images.

An operation is held by a lease that a heartbeat renews. A worker that dies lets it run out; the
next one begins again, and finds the blobs that are stored already.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from virtmgr.domain.errors import ImageError, VirtmgrError
from virtmgr.domain.image import Blob, Image, ImageManifest, ImageState, ImageType
from virtmgr.domain.operation import UNFINISHED, Operation, OperationState
from virtmgr.domain.workload import Kind
from virtmgr.ports.images import (
    BuildRequest,
    ImageBuilder,
    ImageImporter,
    ImportRequest,
    Leftover,
    PublishRequest,
)
from virtmgr.ports.unit_of_work import ListQuery, UnitOfWork
from virtmgr.services import exports, partial_uploads
from virtmgr.services.container import Services
from virtmgr.services.holding import DATABASE_AWAY, heartbeat, new_holder
from virtmgr.services.operation_end import end
from virtmgr.services.records import Target, add_event

log = structlog.get_logger(__name__)

MADE_HERE: Final = ("import", "build")
MADE_WITH_HOSTS: Final = ("publish",)  # apart, as a slow host must not keep others waiting
VERBS: Final = MADE_HERE + MADE_WITH_HOSTS
FAILED_LIFE: Final = timedelta(days=3)
LEFTOVER_LIFE: Final = timedelta(hours=24)  # since something came last
_LEASE: Final = timedelta(seconds=20)
_IDLE: Final = 1.0
_TRIES: Final = 3
_LONGEST_MESSAGE: Final = 4096
_LOOK: Final = 0.1  # seconds
_LOOKS: Final = 50


def blobs_change(uow: UnitOfWork, now: datetime) -> None:
    """Exclude other units that add or remove images' blobs, until this one ends."""
    uow.settings.set("blobs_changed_at", now.isoformat())


def remove_unused(services: Services, digests: Iterable[str]) -> None:
    """Remove the blobs among ``digests`` that no image needs.

    An import that runs meanwhile and counts on one notices at its end, and fetches it again.
    """
    with services.units() as uow:
        blobs_change(uow, services.clock.now())
        for digest in digests:
            if not uow.images.find_by_blob(digest):
                services.blobs.remove(digest)
        uow.commit()


@dataclass(frozen=True)
class Unused:
    """What no image needs. ``busy``: images are being made, so that nobody can say."""

    blobs: tuple[Blob, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    busy: bool = False


def unused(services: Services, uow: UnitOfWork, now: datetime) -> Unused:
    """Blobs that no image needs, and what was left of uploads and of crashed work."""
    if _is_busy(uow):
        return Unused(busy=True)
    return Unused(
        blobs=tuple(
            Blob(digest=digest, size=services.blobs.size(digest))
            for digest in services.blobs
            if not uow.images.find_by_blob(digest)
        ),
        leftovers=tuple(_leftovers(services, now, busy=False)),
    )


def _is_busy(uow: UnitOfWork) -> bool:
    going_on = ListQuery(
        filters={"verb": VERBS, "state": UNFINISHED},
        limit=1,
    )
    return bool(uow.operations.list(going_on).items)


def _leftovers(services: Services, now: datetime, *, busy: bool) -> Iterator[Leftover]:
    """What nobody has written to for a day; parts of uploads are in no import's use."""
    for leftover in services.blobs.leftovers(now - LEFTOVER_LIFE):
        if not busy or partial_uploads.is_part(leftover.path.name):
            yield leftover


def remove_leftovers(services: Services) -> None:
    """Remove what was left of uploads and of crashed work a day ago."""
    with services.units(read_only=True) as uow:
        busy = _is_busy(uow)
    for leftover in _leftovers(services, services.clock.now(), busy=busy):
        services.blobs.remove_leftover(leftover)


def collect(services: Services) -> None:
    """Remove every blob that no image needs, and leftovers, unless images are being made."""
    now = services.clock.now()
    with services.units() as uow:
        blobs_change(uow, now)
        found = unused(services, uow, now)
        for blob in found.blobs:
            services.blobs.remove(blob.digest)
        for leftover in found.leftovers:
            services.blobs.remove_leftover(leftover)
        uow.commit()


def remove_failed(services: Services) -> None:
    """Remove images that failed days ago and that nobody has asked for again."""
    now = services.clock.now()
    with services.units() as uow:
        page = uow.images.list(ListQuery(filters={"state": ImageState.FAILED}, sort="created_at"))
        for found in page.items:
            image = uow.images.lock(found.id)
            if image is None or image.state is not ImageState.FAILED:
                continue
            if image.created_at > now - FAILED_LIFE:
                break
            target = Target("image", image.id, image.name)
            message = f"image {image.name}, which had failed, was removed"
            add_event(uow, "image.deleted", target, now=now, message=message)
            uow.images.remove(image)
        uow.commit()


def private_files(services: Services, operation: Operation) -> list[Path]:
    """What an import needs only until its end: the upload, credentials for a registry."""
    ids = [operation.parameters.get(key) for key in ("upload", "credentials")]
    return [services.blobs.upload_path(id) for id in ids if id is not None]


@dataclass
class _Progress:
    """What the work says of itself, for the heartbeat to write."""

    done: int = 0
    total: int | None = None
    message: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)

    def report(self, done: int, total: int | None, message: str) -> None:
        self.done, self.total, self.message = done, total, message

    @property
    def share(self) -> float:
        """Between 0 and 1; never quite 1, as only the finished operation is."""
        return min(0.99, self.done / self.total) if self.total else 0.0


class ImageWorker:
    """Carries out ``verbs`` one after the other; start several for more at a time."""

    def __init__(
        self,
        services: Services,
        importer: ImageImporter,
        builder: ImageBuilder,
        verbs: Sequence[str] = VERBS,
    ) -> None:
        self._services = services
        self._verbs = verbs
        self._importer = importer
        self._builder = builder
        self._owner = new_holder()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; what is under way then ends first."""
        while not stop.is_set():
            try:
                if not self.run_once():
                    stop.wait(_IDLE)
            except VirtmgrError as error:  # such as a database that is away
                log.warning("image_worker_failed", error=error.message, code=error.code)
                stop.wait(_IDLE)

    def run_once(self) -> bool:
        """Take one operation and carry it out; False if there is none."""
        operation = self._take()
        if operation is None:
            return False
        progress = _Progress()
        with heartbeat(partial(self._beat, operation.id, progress), name="image"):
            try:
                self._make(operation, progress)
            except VirtmgrError as error:
                if error.code in DATABASE_AWAY:
                    raise
                self._fail(operation, error)
            except Exception as error:
                log.exception("image_work_crashed", operation=operation.id)
                self._fail(operation, _defect(operation, error))
        return True

    def _take(self) -> Operation | None:
        now = self._services.clock.now()
        with self._services.units() as uow:
            operation = uow.operations.take(self._verbs, self._owner, now + _LEASE, now)
            uow.commit()
        return operation

    def _make(self, operation: Operation, progress: _Progress) -> None:
        for _ in range(_TRIES):
            manifest = self._work(operation, progress)
            if self._finish(operation, manifest):
                return
        raise ImageError(
            f"{operation.verb} image {operation.target_name}: its blobs were removed by others "
            "while it was made",
            hint="try again",
        )

    def _work(self, operation: Operation, progress: _Progress) -> ImageManifest:
        parameters = operation.parameters
        cancelled = progress.cancelled.is_set
        if operation.verb == "build":
            request = _build_request(parameters)
            return self._builder.build(request, progress.report, cancelled)
        if operation.verb == "publish":
            return self._importer.publish(
                self._publish_request(operation, progress), progress.report, cancelled
            )
        return self._importer.import_image(
            self._import_request(operation), progress.report, cancelled
        )

    def _import_request(self, operation: Operation) -> ImportRequest:
        asked = operation.parameters
        upload, type = asked.get("upload"), asked.get("type")
        credentials = asked.get("credentials")
        return ImportRequest(
            source=asked.get("source") or operation.target_name,
            path=None if upload is None else self._wait_for(upload),
            type=None if type is None else ImageType(type),
            init=asked.get("init"),
            checksum=asked.get("checksum"),
            architecture=asked.get("architecture"),
            insecure_registry=bool(asked.get("insecure_registry")),
            credentials=None if credentials is None else self._wait_for(credentials),
        )

    def _publish_request(self, operation: Operation, progress: _Progress) -> PublishRequest:
        path = self._services.blobs.upload_path(operation.parameters["upload"])
        workload_id = operation.parameters["workload"]
        exported = exports.receive(
            self._services, workload_id, path, progress.report, progress.cancelled.is_set
        )
        comment = f"published from workload {exported.workload}"
        return PublishRequest(path, exported.kind, exported.base, comment)

    def _wait_for(self, private_file: str) -> Path:
        """It is written just after the operation is committed."""
        path = self._services.blobs.upload_path(private_file)
        for _ in range(_LOOKS):
            if path.exists():
                return path
            time.sleep(_LOOK)
        raise ImageError(
            "what the import needs was lost with the process that took it",
            hint="import the image again",
        )

    def _finish(self, taken: Operation, manifest: ImageManifest) -> bool:
        """Make the image ready; False if a blob is gone, so that it must be made again."""
        now = self._services.clock.now()
        with self._services.units() as uow:
            blobs_change(uow, now)
            found = self._held(uow, taken)
            if found is None:
                return True  # cancelled, or taken by another worker
            if not all(self._services.blobs.exists(blob.digest) for blob in manifest.blobs()):
                return False
            operation, image = found
            image.manifest, image.type = manifest, manifest.type
            image.digest, image.size = _digest(manifest), manifest.size
            image.state, image.failure = ImageState.READY, None
            end(operation, OperationState.SUCCEEDED, now)
            self._close(uow, operation, image, "image.ready", f"image {image.name} is ready", now)
        self._remove_private(taken)
        return True

    def _fail(self, taken: Operation, error: VirtmgrError) -> None:
        now = self._services.clock.now()
        with self._services.units() as uow:
            found = self._held(uow, taken)
            if found is not None:
                operation, image = found
                message = _readable(error.message)
                image.state, image.failure = ImageState.FAILED, message
                problem = {"code": error.code, "detail": message, "hint": error.hint}
                end(operation, OperationState.FAILED, now, message, problem=problem)
                self._close(uow, operation, image, "image.failed", message, now)
                self._remove_private(taken)
        collect(self._services)

    def _held(self, uow: UnitOfWork, taken: Operation) -> tuple[Operation, Image] | None:
        """The operation and its image, if they are still this worker's to finish."""
        image = uow.images.lock(taken.target_id)
        operation = uow.operations.lock(taken.id)
        mine = operation is not None and operation.owner == self._owner
        if operation is None or image is None or not mine:
            return None
        return (operation, image) if operation.state is OperationState.RUNNING else None

    def _close(
        self,
        uow: UnitOfWork,
        operation: Operation,
        image: Image,
        event: str,
        message: str,
        now: datetime,
    ) -> None:
        add_event(
            uow,
            event,
            Target("image", image.id, image.name),
            now=now,
            user_id=operation.user_id,
            operation_id=operation.id,
            message=message,
        )
        uow.after_commit(self._services.committed.notify)
        uow.commit()

    def _remove_private(self, taken: Operation) -> None:
        for path in private_files(self._services, taken):
            path.unlink(missing_ok=True)

    def _beat(self, operation_id: str, progress: _Progress) -> None:
        now = self._services.clock.now()
        with self._services.units() as uow:
            operation = uow.operations.lock(operation_id)
            held = operation is not None and operation.owner == self._owner
            if operation is None or not held or operation.state is not OperationState.RUNNING:
                progress.cancelled.set()
                return
            operation.lease_expires_at = now + _LEASE
            operation.progress = max(operation.progress, progress.share)
            operation.message, operation.updated_at = progress.message, now
            uow.after_commit(self._services.committed.notify)
            uow.commit()


def _build_request(parameters: dict[str, Any]) -> BuildRequest:
    return BuildRequest(
        distribution=parameters["distribution"],
        suite=parameters["suite"],
        kind=Kind(parameters["kind"]),
        init=parameters.get("init"),
        mirror=parameters.get("mirror"),
    )


def _digest(manifest: ImageManifest) -> str:
    """SHA-256 of the manifest as canonical JSON; where it came from is no part of it."""
    document = manifest.for_host().model_dump(mode="json")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _readable(message: str) -> str:
    """A message that may quote what is not trusted, as every database and terminal takes it."""
    kept = (
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}"
        for char in message[:_LONGEST_MESSAGE]
    )
    return "".join(kept)


def _defect(operation: Operation, error: Exception) -> ImageError:
    return ImageError(
        f"{operation.verb} image {operation.target_name}: virtmgr failed by a defect of its own "
        f"({type(error).__name__})",
        code="internal_error",
        hint="find the operation's id in the server's log and report it",
    )
