"""A host with a highly available workload keeps its lease by brief syncs, over real connections."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.agent.test_renewal import running
from tests.bootstrap.raw import eventually
from tests.fixtures.control_plane import Server, new_control_plane, served
from tests.fixtures.enrolled_host import enrol
from virtmgr.agent.watchdog import DEADLINE, FenceFiles
from virtmgr.domain.host import Host
from virtmgr.domain.ids import new_id
from virtmgr.domain.workload import Init, Kind, State, Workload, WorkloadSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = new_control_plane(tmp_path / "control-plane")
    with served(server):
        yield server


def host_of(server: Server) -> Host:
    with server.inventory() as uow:
        found = uow.hosts.find("host1")
        assert found is not None
        return found


def make_workload(server: Server) -> str:
    """A highly available one on ``host1``; its id."""
    spec = WorkloadSpec.model_validate(
        {"name": "ha1", "kind": "container", "init": "app", "image": "x", "ha": {"enabled": True}}
    )
    now = datetime.now(UTC)
    with server.inventory() as uow:
        host, project = uow.hosts.find("host1"), uow.projects.find("default")
        assert host is not None
        assert project is not None
        workload = Workload(
            id=new_id(), project_id=project.id, name="ha1", kind=Kind.CONTAINER, init=Init.APP,
            spec=spec, host_id=host.id, cluster_id=host.cluster_id, ha_since=1,
            revision=uow.hosts.next_revision(host.id), created_at=now, updated_at=now,
        )  # fmt: skip
        uow.workloads.add(workload)
        return workload.id


def state_of(server: Server, workload_id: str) -> State:
    with server.inventory() as uow:
        workload = uow.workloads.get(workload_id)
        assert workload is not None
        return workload.status.state


def test_the_lease_is_kept(server: Server, tmp_path: Path) -> None:
    fence = tmp_path / "host" / "fence"
    with running(enrol(server, tmp_path / "host"), tmp_path / "host"):
        eventually(lambda: host_of(server).renewals > 0)
        assert host_of(server).lease_seconds == 30
        id = make_workload(server)
        eventually(lambda: state_of(server, id) is State.RUNNING)
        assert host_of(server).lease_seconds == 9
        files, renewals = FenceFiles(fence), host_of(server).renewals
        deadline = files.read_time(DEADLINE)
        eventually(lambda: files.read_time(DEADLINE) > deadline + 9)
        assert host_of(server).renewals >= renewals + 3
        assert state_of(server, id) is State.RUNNING
