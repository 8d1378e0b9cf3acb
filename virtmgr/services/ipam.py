"""Addresses of networks: given and taken back in the transaction of whoever uses them."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from virtmgr.domain.errors import Conflict, InvalidRequest, NotFound
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import Address, Network, free_addresses, gateway, mac_address
from virtmgr.domain.workload import Nic, NicSpec
from virtmgr.ports.unit_of_work import UnitOfWork


def find_network(uow: UnitOfWork, project_id: str, reference: str, field: str) -> Network:
    """The network that ``reference`` names in the project or among the shared ones.

    :raises NotFound: there is none; ``field`` says where it was named.
    """
    network = uow.networks.find(project_id, reference)
    if network is None:
        raise NotFound(
            f"there is no network {reference!r} in this project or shared by all",
            code="network_not_found",
            field=field,
            hint="see 'virtmgr network list'",
        )
    return network


@dataclass(frozen=True)
class NicWish:
    """A NIC that a workload is to have; ``index`` counts its NICs."""

    workload_id: str
    index: int
    asked: NicSpec
    network: Network


def add_nics(uow: UnitOfWork, wishes: Sequence[NicWish], now: datetime) -> None:
    """Make NICs with one address per family of their networks; few statements, however many.

    The caller has locked the networks, so that two transactions never choose the same address.

    :raises InvalidRequest: the address asked for is not one of the network.
    :raises Conflict: it is taken, or the network has none left.
    """
    choices = {
        network_id: _Choice(uow.addresses.taken(network_id))
        for network_id in sorted({wish.network.id for wish in wishes})
    }
    nics, addresses = [], []
    for wish in wishes:
        nic_id, network = new_id(), wish.network
        nics.append(
            Nic(
                id=nic_id,
                workload_id=wish.workload_id,
                network_id=network.id,
                index=wish.index,
                mac=mac_address(nic_id),
            )
        )
        field = f"nics.{wish.index}.address"
        addresses += [
            Address(
                id=new_id(), network_id=network.id, address=address, nic_id=nic_id, created_at=now
            )
            for address in choices[network.id].choose(network, wish.asked.address, field=field)
        ]
    uow.nics.add_all(nics)
    uow.addresses.add_all(addresses)


def lock_networks(uow: UnitOfWork, networks: Iterable[Network]) -> None:
    """Before addresses are taken on several, in the order of ids; before volumes are locked."""
    for network_id in sorted({network.id for network in networks}):
        uow.networks.lock(network_id)


def remove_nic(uow: UnitOfWork, nic: Nic) -> int:
    """Remove a NIC and give its addresses back; how many these were."""
    addresses = uow.addresses.of_nics([nic.id]).get(nic.id, ())
    for address in addresses:
        uow.addresses.remove(address)
    uow.flush()
    uow.nics.remove(nic)
    return len(addresses)


def addresses_per_nic(network: Network) -> int:
    """How many addresses a NIC on this network takes."""
    return sum(1 for cidr in (network.ipv4, network.ipv6) if cidr)


class _Choice:
    """Chooses addresses of one network, each once."""

    def __init__(self, taken: frozenset[str]) -> None:
        self._taken = set(taken)
        self._free: dict[str, Iterator[str]] = {}  # by family, from where the last one was found

    def choose(self, network: Network, asked: str, *, field: str) -> list[str]:
        """An address of each family, and the one that was asked for among them."""
        families = [cidr for cidr in (network.ipv4, network.ipv6) if cidr]
        chosen = []
        matched = asked == "auto"
        for cidr in families:
            if asked != "auto" and _belongs(asked, cidr):
                matched = True
                chosen.append(_check_asked(network, asked, cidr, self._taken, field))
                continue
            free = self._next_free(cidr)
            if free is None:
                raise Conflict(
                    f"network {network.name!r} has no free address left in {cidr}",
                    code="addresses_exhausted",
                    field=field,
                    hint="delete unused workloads, or attach to another network",
                )
            chosen.append(free)
        if not matched:
            raise InvalidRequest(
                f"{asked} is not an address of network {network.name!r} ({', '.join(families)})",
                code="address_outside_network",
                field=field,
                hint="use auto, or an address of the network",
            )
        self._taken.update(chosen)
        return chosen

    def _next_free(self, cidr: str) -> str | None:
        if cidr not in self._free:
            self._free[cidr] = free_addresses(cidr, self._taken)
        return next((one for one in self._free[cidr] if one not in self._taken), None)


def _check_asked(
    network: Network, asked: str, cidr: str, taken: Collection[str], field: str
) -> str:
    parsed = ipaddress.ip_network(cidr)
    edges = {str(parsed.network_address), gateway(cidr)}
    if parsed.version == 4:
        edges.add(str(parsed.broadcast_address))
    if asked in edges:
        raise InvalidRequest(
            f"{asked} is kept for the network itself (its base, gateway or broadcast address)",
            code="address_reserved",
            field=field,
            hint="use auto, or another address of the network",
        )
    if asked in taken:
        raise Conflict(
            f"{asked} is in use on network {network.name!r}",
            code="address_taken",
            field=field,
            hint="use auto, or see 'virtmgr network addresses'",
        )
    return asked


def _belongs(address: str, cidr: str) -> bool:
    network = ipaddress.ip_network(cidr)
    parsed = ipaddress.ip_address(address)
    return parsed.version == network.version and parsed in network
