"""Entities for tests: each maker gives a valid one, any field can be given."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from virtmgr.domain.host import Cluster, Host, HostState
from virtmgr.domain.ids import new_id
from virtmgr.domain.image import Image, ImageState
from virtmgr.domain.network import Address, Network, mac_address
from virtmgr.domain.operation import Event, Operation
from virtmgr.domain.project import Project, Quota, User
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import Kind, Nic, Workload, WorkloadSpec
from virtmgr.ports.unit_of_work import UnitOfWork

NOW = datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)
GIB = 1024**3


class Inventory:
    """What a workload needs around it."""

    def __init__(self) -> None:
        self.project = Project(id=new_id(), name="acme", created_at=NOW)
        self.quota = Quota(project_id=self.project.id)
        self.user = User(id=new_id(), name="alice", created_at=NOW)
        self.cluster = Cluster(id=new_id(), name="default", created_at=NOW)
        self.host = self.make_host()
        self.network = Network(
            id=new_id(), project_id=None, name="default", ipv4="10.40.0.0/16", created_at=NOW
        )
        self.image = self.make_image()

    def save(self, uow: UnitOfWork) -> None:
        uow.projects.add(self.project)
        uow.quotas.add(self.quota)
        uow.users.add(self.user)
        uow.clusters.add(self.cluster)
        uow.hosts.add(self.host)
        uow.networks.add(self.network)
        uow.images.add(self.image)

    def make_host(self, **fields: Any) -> Host:
        given = {
            "name": "host1",
            "cluster_id": self.cluster.id,
            "state": HostState.READY,
            "architecture": "x86_64",
            "capacity_vcpus": 16.0,
            "capacity_memory": 64 * GIB,
            "capacity_disk": 500 * GIB,
        }
        return Host(id=new_id(), created_at=NOW, **{**given, **fields})

    def make_image(self, **fields: Any) -> Image:
        given: dict[str, Any] = {
            "name": "debian",
            "type": None,
            "state": ImageState.IMPORTING,
            "source": "test",
            "manifest": None,
            "digest": None,
            "size": 0,
        }
        return Image(id=new_id(), created_at=NOW, **{**given, **fields})

    def make_workload(self, name: str = "web1", **fields: Any) -> Workload:
        labels = fields.pop("labels", {"tier": "web"})
        given = {
            "project_id": self.project.id,
            "kind": Kind.CONTAINER,
            "init": None,
            "spec": WorkloadSpec(name=name, kind=Kind.CONTAINER, image="debian", labels=labels),
            "host_id": self.host.id,
            "cluster_id": self.cluster.id,
            "image_id": self.image.id,
            "created_at": NOW,
            "updated_at": NOW,
        }
        return Workload(id=new_id(), name=name, **{**given, **fields})

    def make_nic(self, workload: Workload, **fields: Any) -> Nic:
        id = new_id()
        given = {"network_id": self.network.id, "index": 0, "mac": mac_address(id)}
        return Nic(id=id, workload_id=workload.id, **{**given, **fields})

    def make_address(self, address: str, **fields: Any) -> Address:
        given = {"network_id": self.network.id, "nic_id": None, "created_at": NOW}
        return Address(id=new_id(), address=address, **{**given, **fields})

    def make_volume(self, name: str = "data", **fields: Any) -> Volume:
        given = {"project_id": self.project.id, "size": GIB, "created_at": NOW}
        return Volume(id=new_id(), name=name, **{**given, **fields})

    def make_operation(self, target_id: str, **fields: Any) -> Operation:
        given = {
            "verb": "create",
            "target_type": "workload",
            "target_name": "web1",
            "project_id": self.project.id,
            "user_id": self.user.id,
            "created_at": NOW,
            "updated_at": NOW,
        }
        return Operation(id=new_id(), target_id=target_id, **{**given, **fields})


def make_event(**fields: Any) -> Event:
    given: dict[str, Any] = {
        "at": NOW,
        "type": "workload.created",
        "target_type": "workload",
        "target_id": new_id(),
        "target_name": "web1",
        "project_id": None,
        "user_id": None,
    }
    return Event(**{**given, **fields})
