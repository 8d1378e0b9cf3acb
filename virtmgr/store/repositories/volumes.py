"""Volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from sqlalchemy import Select, select

from virtmgr.domain.volume import Volume
from virtmgr.store import tables
from virtmgr.store.listing import Listing
from virtmgr.store.repositories.base import SqlProjectRepository, among

_volumes = tables.volumes.c


class SqlVolumes(SqlProjectRepository[Volume]):
    entity = Volume
    table = tables.volumes
    listing = Listing(
        tie=_volumes.id,
        filters={
            "name": _volumes.name,
            "id": _volumes.id,
            "project": _volumes.project_id,
            "state": _volumes.state,
            "host": _volumes.host_id,
            "pool": _volumes.pool_id,
            "workload": _volumes.workload_id,
        },
        sorts={
            "name": _volumes.name,
            "created_at": _volumes.created_at,
            "size": _volumes.size,
            "state": _volumes.state,
        },
        text=_volumes.name,
        is_lower=True,
        labels=_volumes.labels,
        project=_volumes.project_id,
    )

    def of_workload(self, workload_id: str) -> Sequence[Volume]:
        return self._many(_volumes.workload_id == workload_id, order=[_volumes.id])

    def of_workloads(self, workload_ids: Iterable[str]) -> Mapping[str, Sequence[Volume]]:
        found: dict[str, list[Volume]] = {workload_id: [] for workload_id in workload_ids}
        if found:
            for volume in self._asked(_of_workloads(arrays=self._arrays), workloads=list(found)):
                found[str(volume.workload_id)].append(volume)
        return found

    def on_host(self, host_id: str) -> Sequence[Volume]:
        return self._many(_volumes.host_id == host_id, order=[_volumes.id])


@cache
def _of_workloads(*, arrays: bool) -> Select[Volume]:
    wanted = among(_volumes.workload_id, "workloads", arrays=arrays)
    return select(Volume).where(wanted).order_by(_volumes.id)
