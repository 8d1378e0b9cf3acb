"""Volumes."""

from __future__ import annotations

from collections.abc import Sequence

from virtmgr.domain.volume import Volume
from virtmgr.store import tables
from virtmgr.store.listing import Listing
from virtmgr.store.repositories.base import SqlProjectRepository

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

    def on_host(self, host_id: str) -> Sequence[Volume]:
        return self._many(_volumes.host_id == host_id, order=[_volumes.id])
