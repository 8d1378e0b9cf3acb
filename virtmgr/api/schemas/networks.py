"""Networks and addresses as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView, Referrer
from virtmgr.domain.network import Address, Network, NetworkType
from virtmgr.ports.unit_of_work import UnitOfWork


class NetworkView(View):
    """What NICs are ports on."""

    id: str
    name: str
    project: ReferenceView | None = Field(description="null: shared by all projects.")
    type: NetworkType
    ipv4: str | None = Field(description="CIDR; the first address is the gateway.")
    ipv6: str | None
    bridge: str | None
    dns_domain: str
    mtu: int
    vni: int | None = Field(description="Type overlay: its VXLAN network identifier.")
    interface: str | None = Field(description="Type vlan: the hosts' interface that it is on.")
    vlan: int | None = Field(description="Type vlan: its id.")
    labels: dict[str, str]
    created_at: datetime
    version: int


class AddressView(View):
    """A reserved address."""

    id: str
    address: str
    mac: str | None = Field(description="Of the NIC that has it.")
    workload: ReferenceView | None = Field(description="null: none, or not one that may be seen.")
    created_at: datetime


def network_presenter(
    uow: UnitOfWork, networks: Sequence[Network] = ()
) -> Callable[[Network], NetworkView]:
    """How to present networks."""
    project = Referrer(uow.projects, (network.project_id for network in networks))

    def present(network: Network) -> NetworkView:
        return NetworkView(
            id=network.id,
            name=network.name,
            project=project(network.project_id),
            type=network.type,
            ipv4=network.ipv4,
            ipv6=network.ipv6,
            bridge=network.bridge,
            dns_domain=network.dns_domain,
            mtu=network.mtu,
            vni=network.vni,
            interface=network.interface,
            vlan=network.vlan,
            labels=network.labels,
            created_at=network.created_at,
            version=network.version,
        )

    return present


class NetworkLoadView(View):
    """How many workloads of a host are on a network."""

    host: ReferenceView | None = Field(description="null: not placed.")
    workloads: int


class TopologyView(NetworkView):
    """A network with what is on it."""

    loads: list[NetworkLoadView] = Field(description="By host; those with none are left out.")


def topology_presenter(
    uow: UnitOfWork, networks: Sequence[Network], visible: frozenset[str] | None
) -> Callable[[Network], TopologyView]:
    """How to present these networks with what of the visible projects is on them."""
    present_network = network_presenter(uow, networks)
    loads: dict[str, list[NetworkLoadView]] = {}
    for load in uow.networks.loads([network.id for network in networks], visible):
        host = load.host_id and ReferenceView(id=load.host_id, name=load.host_name or "")
        view = NetworkLoadView(host=host or None, workloads=load.workloads)
        loads.setdefault(load.network_id, []).append(view)

    def present(network: Network) -> TopologyView:
        return TopologyView(**dict(present_network(network)), loads=loads.get(network.id, []))

    return present


def present_addresses(
    uow: UnitOfWork, addresses: Sequence[Address], visible: frozenset[str] | None
) -> dict[str, AddressView]:
    """Addresses by id; on a shared network, others' workloads stay unnamed."""
    views = {}
    for address in addresses:
        nic = None if address.nic_id is None else uow.nics.get(address.nic_id)
        workload = None if nic is None else uow.workloads.get(nic.workload_id)
        seen = workload is not None and (visible is None or workload.project_id in visible)
        views[address.id] = AddressView(
            id=address.id,
            address=address.address,
            mac=nic.mac if nic is not None and seen else None,
            workload=(
                ReferenceView(id=workload.id, name=workload.name)
                if workload is not None and seen
                else None
            ),
            created_at=address.created_at,
        )
    return views
