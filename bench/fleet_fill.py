"""Workloads of a simulated fleet by the ten thousand, put into the inventory without any request.

One is made as an entity; the others are its row with other names, hosts and addresses.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sqlalchemy import Table, insert, select, update

from tests.fixtures.control_plane import Server, add_images
from tests.store.inventory import Inventory
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import Network, mac_address
from virtmgr.domain.project import Project, Quota
from virtmgr.domain.workload import GIB, Init, Kind, State, Workload, WorkloadSpec, WorkloadStatus
from virtmgr.store import tables
from virtmgr.store.engine import make_engine

_AT_ONCE = 1000
_PROJECT = 1000  # workloads of each


def fill(server: Server, workloads: int) -> None:
    """So many more workloads that are desired to run, spread over all hosts evenly."""
    projects = [_project(server, number) for number in range(-(-workloads // _PROJECT))]
    with server.inventory() as uow:
        hosts = [host.id for host in uow.hosts.all()]
        template = _template(uow, projects[0][0], hosts[0])
        uow.workloads.add(template)
    engine = make_engine(server.settings.database)
    with engine.begin() as connection:
        one = connection.execute(select(tables.workloads)).mappings().one()
        columns = [c.name for c in tables.workloads.c if c.computed is None]
        base = {name: one[name] for name in columns}
        connection.execute(tables.workloads.delete())
        for rows in _rows(base, projects, hosts, workloads):
            for table, some in rows.items():
                connection.execute(insert(table), some)
        share = -(-workloads // len(hosts))
        connection.execute(
            update(tables.hosts).values(
                revision=tables.hosts.c.revision + 1,
                claimed_vcpus=share * 0.1,
                claimed_memory=share * GIB // 2,
            )
        )
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()


def _project(server: Server, number: int) -> tuple[str, str]:
    """Ids of a project and its network."""
    now = datetime.now(UTC)
    with server.inventory() as uow:
        if number == 0 and uow.images.find("busybox") is None:
            add_images(uow)
        project = Project(id=new_id(), name=f"project-{new_id()[-8:]}-{number}", created_at=now)
        uow.projects.add(project)
        uow.quotas.add(Quota(project_id=project.id))
        network = Network(
            id=new_id(),
            project_id=project.id,
            name="own",
            ipv4=f"10.{64 + number // 16}.{number % 16 * 16}.0/20",
            created_at=now,
        )
        uow.networks.add(network)
    return project.id, network.id


def _template(uow: Any, project_id: str, host_id: str) -> Workload:
    now = datetime.now(UTC)
    cluster, image = uow.clusters.find("default"), uow.images.find("busybox")
    spec = WorkloadSpec.model_validate(
        {
            "name": "template",
            "kind": "container",
            "init": "app",
            "image": "busybox",
            "resources": {"vcpus": 0.1, "memory": GIB // 2},
            "labels": {"tier": "web", "team": "a"},
            "nics": [{"network": "own"}],
        }
    )
    return Inventory().make_workload(
        "template", project_id=project_id, kind=Kind.CONTAINER, init=Init.APP, spec=spec,
        status=WorkloadStatus(state=State.RUNNING, started_at=now), observed_generation=1,
        host_id=host_id, cluster_id=cluster.id, image_id=image.id, claim_vcpus=0.1,
        claim_memory=GIB // 2, revision=1, created_at=now, updated_at=now,
    )  # fmt: skip


def _rows(
    base: dict[str, Any],
    projects: Sequence[tuple[str, str]],
    hosts: Sequence[str],
    count: int,
) -> Iterator[dict[Table, list[dict[str, Any]]]]:
    now = datetime.now(UTC)
    for first in range(0, count, _AT_ONCE):
        workloads, nics, addresses = [], [], []
        for number in range(first, min(first + _AT_ONCE, count)):
            project, network = projects[number // _PROJECT]
            place = number % _PROJECT + 10
            name, id, nic = f"workload-{number}", new_id(), new_id()
            spec = base["spec"].model_copy(
                update={"name": name, "labels": {"tier": "web", "team": f"t{number % 50}"}}
            )
            made = now - timedelta(seconds=number)
            workloads.append(
                {**base, "id": id, "name": name, "spec": spec, "project_id": project,
                 "host_id": hosts[number % len(hosts)], "created_at": made, "updated_at": made,
                 "claim_vcpus": 0.1 + number % 40 / 10, "claim_memory": GIB // 2 + number % 1000}
            )  # fmt: skip
            nics.append(
                {
                    "id": nic,
                    "workload_id": id,
                    "network_id": network,
                    "position": 0,
                    "mac": mac_address(nic),
                }
            )
            block = projects.index((project, network))
            address = f"10.{64 + block // 16}.{block % 16 * 16 + place // 256}.{place % 256}"
            addresses.append(
                {"id": new_id(), "network_id": network, "address": address, "nic_id": nic,
                 "created_at": now}
            )  # fmt: skip
        yield {tables.workloads: workloads, tables.nics: nics, tables.addresses: addresses}
