"""Networks and workloads for the network adapter's tests."""

from __future__ import annotations

from typing import Any

from virtmgr.domain.network import NetworkType, bridge_name, mac_address
from virtmgr.domain.sync import DesiredNetwork, DesiredNic, DesiredWorkload, NetworkName
from virtmgr.domain.workload import Kind, Port, PowerState, WorkloadSpec


def sample_id(number: int) -> str:
    return f"01997d2e-7c1e-7aaa-8000-{number:012x}"


def network(number: int, name: str = "default", **given: Any) -> DesiredNetwork:
    """Network ``number`` has 10.N.0.0/16 and fd00:N::/64."""
    id = sample_id(number)
    document: dict[str, Any] = {
        "id": id,
        "name": name,
        "type": NetworkType.NAT,
        "bridge": bridge_name(id),
        "ipv4": f"10.{number}.0.0/16",
        "ipv6": f"fd00:{number}::/64",
        "gateway4": f"10.{number}.0.1",
        "gateway6": f"fd00:{number}::1",
        "dns_domain": f"{name}.virt",
    }
    return DesiredNetwork.model_validate(document | given)


def nic(number: int, on: DesiredNetwork, index: int = 0) -> DesiredNic:
    """NIC ``number`` has the network's addresses with that number at the end."""
    id = sample_id(0xF000 + number)
    return DesiredNic(
        id=id,
        index=index,
        network_id=on.id,
        mac=mac_address(id),
        ipv4=on.gateway4 and f"{on.gateway4[:-1]}{number}/16",
        ipv6=on.gateway6 and f"{on.gateway6[:-1]}{number:x}/64",
        gateway4=on.gateway4,
        gateway6=on.gateway6,
        dns=(on.gateway4,) if on.gateway4 else (),
        dns_domain=on.dns_domain,
        mtu=on.mtu,
    )


def workload(
    name: str, *nics: DesiredNic, kind: Kind = Kind.CONTAINER, ports: tuple[Port, ...] = ()
) -> DesiredWorkload:
    return DesiredWorkload(
        id=f"workload-{name}",
        project="p",
        name=name,
        kind=kind,
        init=None,
        generation=1,
        revision=1,
        spec=WorkloadSpec(name=name, kind=kind, image="x", ports=ports),
        state=PowerState.RUNNING,
        nics=nics,
    )


def named(on: DesiredNetwork, *workloads: DesiredWorkload) -> DesiredNetwork:
    """The network with the names and leases of these workloads."""
    names = tuple(
        NetworkName(
            name=one.name,
            mac=port.mac,
            ipv4=port.ipv4 and port.ipv4.partition("/")[0],
            ipv6=port.ipv6 and port.ipv6.partition("/")[0],
        )
        for one in workloads
        for port in one.nics
        if port.network_id == on.id
    )
    return on.model_copy(update={"names": names})
