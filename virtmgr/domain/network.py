"""Networks, addresses, and the device names that derive from their ids."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class NetworkType(StrEnum):
    NAT = "nat"  # private, reaches out through the host
    BRIDGE = "bridge"  # joins a bridge that the host already has
    OVERLAY = "overlay"  # VXLAN between hosts


@dataclass(kw_only=True)
class Network:
    """A network. ``project_id`` None: shared by all projects."""

    id: str
    project_id: str | None
    name: str
    type: NetworkType = NetworkType.NAT
    ipv4: str | None = None  # CIDR; the first address is the gateway
    ipv6: str | None = None  # CIDR
    bridge: str | None = None  # BRIDGE: the host's bridge
    dns_domain: str = "virt"  # names are WORKLOAD.NETWORK.DOMAIN
    mtu: int = 1500
    labels: dict[str, str] = field(default_factory=dict)
    revision: int = 0
    created_at: datetime
    version: int = 1


@dataclass(kw_only=True)
class Address:
    """One reserved address; unique in its network."""

    id: str
    network_id: str
    address: str  # canonical text, without prefix length
    nic_id: str | None
    created_at: datetime


def bridge_name(network_id: str) -> str:
    """The bridge device of a network that virtmgr makes, within Linux' 15 characters."""
    return "vmb" + network_id.replace("-", "")[-12:]


def port_name(nic_id: str) -> str:
    """The host's end of a NIC (veth or tap), within Linux' 15 characters."""
    return "vmp" + nic_id.replace("-", "")[-12:]


def mac_address(nic_id: str) -> str:
    """A locally administered unicast MAC that derives from the NIC's random bits."""
    tail = nic_id.replace("-", "")[-10:]
    return "52:" + ":".join(tail[i : i + 2] for i in range(0, 10, 2))


def gateway(cidr: str) -> str:
    """The gateway of ``cidr``: its first host address."""
    return str(ipaddress.ip_network(cidr)[1])


def free_addresses(cidr: str, taken: Iterable[str]) -> Iterator[str]:
    """Host addresses of ``cidr`` in order, without network, gateway, broadcast and ``taken``.

    :param taken: addresses of this family; others are ignored.
    """
    network = ipaddress.ip_network(cidr)
    v6 = network.version == 6
    make = ipaddress.IPv6Address if v6 else ipaddress.IPv4Address
    numbers = {_number(each) for each in taken if (":" in each) is v6}
    first, last = int(network.network_address), int(network.broadcast_address)
    for number in range(first + 2, last + 1 if v6 else last):
        if number not in numbers:
            yield str(make(number))


def _number(address: str) -> int:
    """Several times faster than ``ipaddress``, which matters with thousands of them."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return int.from_bytes(socket.inet_pton(family, address))
