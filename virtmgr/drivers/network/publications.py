"""Which ports of the host lead to which workloads: a pure decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from virtmgr.domain.sync import DesiredNetwork, DesiredNic, DesiredWorkload
from virtmgr.domain.workload import Port, PowerState


@dataclass(frozen=True)
class Publication:
    """A port of the host that leads to a port of a workload."""

    protocol: str  # tcp | udp
    address: str  # of the host; 0.0.0.0 or :: for every one
    port: int
    target: str  # the workload's address
    target_port: int
    workload_id: str
    workload: str  # name, for people

    @property
    def key(self) -> tuple[str, str, int]:
        """What can be given only once."""
        return self.protocol, self.address, self.port

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}/{self.protocol}"


def publications(
    networks: Iterable[DesiredNetwork], workloads: Iterable[DesiredWorkload]
) -> tuple[Publication, ...]:
    """Every port that can be published, older workloads first; one that is asked twice, once.

    A workload that is to stop takes no new connections; those it has go on.
    """
    reachable = routed_ids(networks)
    found: dict[tuple[str, str, int], Publication] = {}
    for workload in sorted(workloads, key=lambda each: each.id):
        if workload.deleting or workload.state is PowerState.STOPPED:
            continue
        for publication in wanted(workload, reachable):
            found.setdefault(publication.key, publication)
    return tuple(found.values())


def routed_ids(networks: Iterable[DesiredNetwork]) -> frozenset[str]:
    return frozenset(each.id for each in networks if each.is_routed)


def wanted(workload: DesiredWorkload, reachable: frozenset[str]) -> tuple[Publication, ...]:
    """What the workload asks for, as far as it can be published at all."""
    return tuple(
        Publication(
            protocol=port.protocol,
            address=port.address,
            port=port.host,
            target=target,
            target_port=port.guest,
            workload_id=workload.id,
            workload=workload.name,
        )
        for port in workload.spec.ports
        if impossible(port) is None and (target := _target(workload, port, reachable))
    )


def unreachable(workload: DesiredWorkload, reachable: frozenset[str]) -> str | None:
    """Why one of the workload's ports can never be published; None when all can."""
    for port in workload.spec.ports:
        why = impossible(port)
        if why is None and _target(workload, port, reachable) is None:
            family = "IPv6" if ":" in port.address else "IPv4"
            why = f"the workload has no {family} address on a nat or overlay network"
        if why is not None:
            return f"port {port.host}/{port.protocol} cannot be published: {why}"
    return None


def impossible(port: Port) -> str | None:
    """Why the address cannot be published on: Linux never routes ::1 off the loopback."""
    address = ip_address(port.address)
    if isinstance(address, IPv6Address) and address.is_loopback:
        return "Linux does not route ::1; publish on 127.0.0.1 or another address"
    if address.is_multicast:
        return f"{address} is a multicast address"
    return None


def _target(workload: DesiredWorkload, port: Port, reachable: frozenset[str]) -> str | None:
    nics = (nic for nic in workload.nics if nic.network_id in reachable)
    version6 = ":" in port.address
    return next((found for nic in nics if (found := _address(nic, version6))), None)


def _address(nic: DesiredNic, version6: bool) -> str | None:
    text = nic.ipv6 if version6 else nic.ipv4
    return text.split("/")[0] if text else None
