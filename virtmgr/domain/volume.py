"""Volumes: disks that outlive workloads."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class VolumeState(StrEnum):
    PENDING = "pending"  # made on its host when first attached
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"


@dataclass(kw_only=True)
class Volume:
    """A disk. ``host_id`` and ``pool_id`` are set once it has been bound to a host.

    ``revision`` is the host's desired revision at which the row last changed.
    """

    id: str
    project_id: str
    name: str
    size: int  # bytes
    state: VolumeState = VolumeState.PENDING
    failure: str | None = None
    host_id: str | None = None
    pool_id: str | None = None
    workload_id: str | None = None  # attached to
    labels: dict[str, str] = field(default_factory=dict)
    revision: int = 0
    copy_of: str | None = None  # the volume whose content is still being copied
    created_at: datetime
    version: int = 1
