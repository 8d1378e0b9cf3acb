"""Networks, addresses, and the device names that derive from their ids."""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from virtmgr.domain.errors import Conflict

_VNIS = 2**24
_WRITTEN_AT_ONCE = 256


class NetworkType(StrEnum):
    NAT = "nat"  # private, reaches out through the host
    BRIDGE = "bridge"  # joins a bridge that the host already has
    OVERLAY = "overlay"  # VXLAN between hosts
    VLAN = "vlan"  # a VLAN (IEEE 802.1Q) on an interface of each host, which others route


def is_routed(type: NetworkType) -> bool:
    """Whether hosts are the gateways of such networks, with DHCP, DNS and NAT; else others are."""
    return type in (NetworkType.NAT, NetworkType.OVERLAY)


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
    interface: str | None = None  # VLAN: the hosts' interface that it is on
    vlan: int | None = None  # VLAN: its id, unique on the interface
    vni: int | None = None  # OVERLAY: VXLAN network identifier, unique among all networks
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


def tunnel_name(network_id: str) -> str:
    """The VXLAN device of an overlay on a host, within Linux' 15 characters."""
    return "vmx" + network_id.replace("-", "")[-12:]


def vlan_name(network_id: str) -> str:
    """The 802.1Q device of a VLAN network on a host, within Linux' 15 characters."""
    return "vml" + network_id.replace("-", "")[-12:]


def choose_vni(network_id: str, taken: Collection[int]) -> int:
    """A VXLAN network identifier (24 bits, RFC 7348 §5; 0 is left out) that is not ``taken``.

    It starts from the network's random bits: one that was given back is not given out again soon,
    and two installations on one underlay hardly ever choose the same.

    :raises Conflict: none is left.
    """
    first = int(network_id.replace("-", "")[-6:], 16)
    for step in range(_VNIS):
        vni = (first + step) % _VNIS
        if vni and vni not in taken:
            return vni
    raise Conflict("every VXLAN network identifier is taken", hint="delete overlay networks")


def overlay_mtu(address: str, link_mtu: int) -> int:
    """The largest packet of an overlay that passes whole through a tunnel from ``address``.

    Outer IP and UDP, VXLAN and the inner Ethernet header take 50 bytes, with IPv6 outside 70.

    :param link_mtu: of the device that has the address.
    """
    return link_mtu - (70 if ":" in address else 50)


def mac_address(nic_id: str) -> str:
    """A locally administered unicast MAC that derives from the NIC's random bits."""
    tail = nic_id.replace("-", "")[-10:]
    return "52:" + ":".join(tail[i : i + 2] for i in range(0, 10, 2))


def known_address(text: str) -> str:
    """An IP address or a MAC, however it is written, as it stands in the inventory.

    :raises ValueError: it is neither.
    """
    text = text.strip()
    if re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        return text.lower().replace("-", ":")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an IP address nor a MAC") from error


@lru_cache(maxsize=1024)
def gateway(cidr: str) -> str:
    """The gateway of ``cidr``: its first host address."""
    return str(ipaddress.ip_network(cidr)[1])


@lru_cache(maxsize=1024)
def prefix_length(cidr: str) -> int:
    """How many bits all addresses of a network have in common."""
    return ipaddress.ip_network(cidr).prefixlen


def free_addresses(cidr: str, taken: Iterable[str]) -> Iterator[str]:
    """Host addresses of ``cidr`` in order, without network, gateway, broadcast and ``taken``.

    :param taken: as ``ipaddress`` writes them; those of other networks are ignored.
    """
    known = frozenset(taken)
    return (address for address in _host_addresses(cidr) if address not in known)


class _HostAddresses:
    """Those of one network, in order; written once, since the first are looked at again and
    again. Safe for threads."""

    def __init__(self, cidr: str) -> None:
        network = ipaddress.ip_network(cidr)
        v6 = network.version == 6
        first, last = int(network.network_address), int(network.broadcast_address)
        self._make = ipaddress.IPv6Address if v6 else ipaddress.IPv4Address
        self._numbers = range(first + 2, last + 1 if v6 else last)
        self._written: list[str] = []
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        seen = 0
        while self._has_more_than(seen):
            written = self._written[seen : seen + _WRITTEN_AT_ONCE]
            yield from written
            seen += len(written)

    def _has_more_than(self, count: int) -> bool:
        """Whether so many are not all; the next ones are written then."""
        with self._lock:
            if len(self._written) == count:
                more = self._numbers[count : count + _WRITTEN_AT_ONCE]
                self._written += [str(self._make(number)) for number in more]
            return len(self._written) > count


_host_addresses = lru_cache(maxsize=16)(_HostAddresses)
