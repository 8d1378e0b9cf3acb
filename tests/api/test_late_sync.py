"""A sync that an agent has given up, and that comes after what it has said since."""

from __future__ import annotations

import pytest

from tests.api.contract import Api
from tests.api.host import PretendHost
from virtmgr.domain.errors import Conflict
from virtmgr.domain.sync import ObservedWorkload, SyncRequest
from virtmgr.domain.workload import State, WorkloadStatus
from virtmgr.services.container import Services
from virtmgr.services.sync import sync


def _says(workload_id: str, state: State, run: str, number: int) -> SyncRequest:
    status = WorkloadStatus(state=state)
    observed = ObservedWorkload(id=workload_id, observed_generation=1, status=status)
    return SyncRequest(workloads=(observed,)).numbered(run, number)


def test_it_changes_nothing(api: Api, services: Services) -> None:
    host = PretendHost(services)
    spec = {"name": "web1", "kind": "container", "image": "busybox"}
    api.post("/projects/default/workloads", spec)
    host.converge()
    workload_id = host.wish("web1").id

    def state() -> str:
        return str(api.get("/projects/default/workloads/web1").body["status"]["state"])

    sync(services, host.id, _says(workload_id, State.RUNNING, "run-1", 2))
    with pytest.raises(Conflict) as refused:
        sync(services, host.id, _says(workload_id, State.FAILED, "run-1", 1))
    assert refused.value.code == "sync_overtaken"
    assert state() == "running"

    sync(services, host.id, _says(workload_id, State.RUNNING, "run-2", 1))  # it has started again
    with pytest.raises(Conflict):
        sync(services, host.id, _says(workload_id, State.FAILED, "run-1", 3))
    assert state() == "running"
    sync(services, host.id, _says(workload_id, State.FAILED, "run-2", 2))
    assert state() == "failed"
