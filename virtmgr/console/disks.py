"""How full a workload's disks are, as far as its host sees that. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from virtmgr.domain.workload import Filling


def root_filling(workload: Mapping[str, Any]) -> Filling | None:
    """Of its root disk; None: its host does not see it."""
    usage = workload["status"]["usage"]
    if not usage or usage["disk_free"] is None:
        return None
    return Filling(used=usage["disk"], free=usage["disk_free"])


def volume_filling(workload: Mapping[str, Any], volume_id: str) -> Filling | None:
    """Of a volume that it has; None: its host does not see it."""
    usage = workload["status"]["usage"]
    found = (usage["volumes"] or {}).get(volume_id) if usage else None
    return Filling.model_validate(found) if found else None


def nearly_full_volumes(workload: Mapping[str, Any]) -> Sequence[str]:
    """The ids of those of its volumes that are."""
    usage = workload["status"]["usage"]
    found = {id: volume_filling(workload, id) for id in (usage or {}).get("volumes") or {}}
    return [id for id, filling in found.items() if filling and filling.is_nearly_full]
