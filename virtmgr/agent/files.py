"""What the agent keeps on disk, so that it and its host can restart without the control plane.

DATA/workloads/ID.json   desired state and memory of one workload
DATA/networks.json       the networks that they are on
DATA/images.json         the images at hand, and when a workload last needed them
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from virtmgr.domain.errors import StorageError
from virtmgr.domain.image import ImageManifest
from virtmgr.domain.image_keeping import KeptImage
from virtmgr.domain.plan import Memory
from virtmgr.domain.sync import DesiredNetwork, DesiredWorkload
from virtmgr.domain.values import known_fields

_TIMES = ("retry_at", "previous_start")  # fields of Memory that are JSON's strings on disk

_log = structlog.get_logger()


@dataclass(frozen=True)
class Entry:
    """One workload as the agent keeps it. ``id_base`` is its range of user ids, 0 for none."""

    desired: DesiredWorkload
    memory: Memory = field(default_factory=Memory)
    id_base: int = 0


@dataclass(frozen=True)
class KeptImages:
    """The images of the host, by id, and the last request to prune that was carried out."""

    images: dict[str, KeptImage] = field(default_factory=dict)
    prune_nonce: int = 0


class StateFiles:
    """Reads and writes the agent's state; every write replaces a whole file atomically."""

    def __init__(self, directory: Path) -> None:
        self._workloads = directory / "workloads"
        self._networks = directory / "networks.json"
        self._images = directory / "images.json"
        self._workloads.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self) -> dict[str, Entry]:
        """Every workload that was kept.

        A file that cannot be read is put aside: the control plane says again what is desired.
        """
        for half_written in self._workloads.glob("*.new"):
            half_written.unlink()
        entries = (_read(path) for path in self._workloads.glob("*.json"))
        return {entry.desired.id: entry for entry in entries if entry is not None}

    def save(self, entry: Entry, *, durable: bool) -> None:
        """Keep ``entry``; with ``durable`` it survives a power cut from here on.

        :raises StorageError: the disk is full or fails; what was kept before still is.
        """
        path = self._workloads / f"{entry.desired.id}.json"
        with _keeping(f"what is asked of workload {entry.desired.name}"):
            _replace(path, _encode(entry), durable=durable)

    def remove(self, workload_id: str) -> None:
        (self._workloads / f"{workload_id}.json").unlink(missing_ok=True)

    def load_networks(self) -> tuple[DesiredNetwork, ...] | None:
        """The networks that were kept.

        None: it is not known which there should be, for the file is not there or cannot be read.
        Then it is put aside, and the control plane says them again.
        """
        try:
            found = json.loads(self._networks.read_bytes())
            return tuple(DesiredNetwork.read_from(data) for data in found)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            _put_aside(self._networks, error)
            return None

    def save_networks(self, networks: tuple[DesiredNetwork, ...]) -> None:
        """Keep all networks that there should be.

        :raises StorageError: the disk is full or fails; what was kept before still is.
        """
        data = [network.model_dump(mode="json") for network in networks]
        with _keeping("the networks"):
            _replace(self._networks, json.dumps(data).encode(), durable=True)

    def load_images(self) -> KeptImages:
        """What was kept of images; none where it cannot be read: they are found again."""
        try:
            return _decode_images(self._images.read_bytes())
        except FileNotFoundError:
            return KeptImages()
        except (ValueError, KeyError, TypeError) as error:
            _log.error("state.unreadable", file=str(self._images), error=str(error))
            return KeptImages()

    def save_images(self, kept: KeptImages) -> None:
        _replace(self._images, _encode_images(kept), durable=False)


def _encode_images(kept: KeptImages) -> bytes:
    images = {
        image_id: {
            "manifest": image.manifest.model_dump(mode="json", exclude_defaults=True),
            "needed_at": image.needed_at.isoformat(),
            "whole": image.whole,
        }
        for image_id, image in kept.images.items()
    }
    return json.dumps({"images": images, "prune_nonce": kept.prune_nonce}).encode()


def _decode_images(content: bytes) -> KeptImages:
    document = json.loads(content)
    images = {
        image_id: KeptImage(
            manifest=ImageManifest.read_from(image["manifest"]),
            needed_at=datetime.fromisoformat(image["needed_at"]),
            whole=image["whole"],
        )
        for image_id, image in document["images"].items()
    }
    return KeptImages(images, document["prune_nonce"])


def _encode(entry: Entry) -> bytes:
    memory: dict[str, Any] = asdict(entry.memory)
    memory |= {key: memory[key].isoformat() for key in _TIMES if memory[key] is not None}
    document = {
        "desired": entry.desired.model_dump(mode="json", exclude_unset=True),
        "memory": memory,
        "id_base": entry.id_base,
    }
    return json.dumps(document).encode()


def _read(path: Path) -> Entry | None:
    try:
        return _decode(path.read_bytes())
    except (ValueError, KeyError, TypeError) as error:
        _put_aside(path, error)
        return None


def _put_aside(path: Path, error: Exception) -> None:
    aside = path.with_suffix(".unreadable")
    path.replace(aside)
    _log.error("state.unreadable", file=str(aside), error=str(error))


def _decode(content: bytes) -> Entry:
    document = json.loads(content)
    memory = known_fields(Memory, document["memory"])
    for key in _TIMES:
        if memory.get(key) is not None:
            memory[key] = datetime.fromisoformat(memory[key])
    memory["needs_restart"] = tuple(memory.get("needs_restart", ()))
    return Entry(
        desired=DesiredWorkload.read_from(document["desired"]),
        memory=Memory(**memory),
        id_base=document["id_base"],
    )


@contextmanager
def _keeping(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"cannot keep {what} on its host: {error.strerror}",
            code="disk_full" if full else None,
            hint="free space on the host's disk: remove workloads, volumes or images",
        ) from error


def _replace(path: Path, content: bytes, *, durable: bool) -> None:
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fdatasync(file.fileno())
    temporary.replace(path)
    if durable:
        _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Let renamed files survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
