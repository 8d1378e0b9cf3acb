"""A workload's new spec with what it keeps named by id.

A spec names images, networks, cluster and host as its owner did. Those names may have changed
since, or mean something else now; what a change of the spec leaves alone stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from virtmgr.domain.workload import Nic, NicSpec, Workload, WorkloadSpec


def pinned(workload: Workload, spec: WorkloadSpec, nics: Sequence[Nic]) -> WorkloadSpec:
    """``spec``, to be resolved in its place. Pure.

    :param nics: the workload's own, in the order of ``workload.spec.nics``.
    """
    old = workload.spec
    changes: dict[str, Any] = {"nics": _nics(old.nics, spec.nics, nics)}
    if spec.image == old.image:
        changes["image"] = workload.image_id
    if spec.cdrom == old.cdrom:
        changes["cdrom"] = workload.cdrom_image_id
    if spec.placement == old.placement:
        host = workload.host_id if old.placement.host is not None else None
        placed = {"cluster": workload.cluster_id, "host": host}
        changes["placement"] = old.placement.model_copy(update=placed)
    return spec.model_copy(update=changes)


def _nics(
    old: Sequence[NicSpec], new: Sequence[NicSpec], present: Sequence[Nic]
) -> tuple[NicSpec, ...]:
    left = list(zip(old, present, strict=False))
    found = []
    for asked in new:
        pair = next((pair for pair in left if pair[0] == asked), None)
        if pair is None:
            found.append(asked)
        else:
            left.remove(pair)
            found.append(asked.model_copy(update={"network": pair[1].network_id}))
    return tuple(found)
