"""The bridges of virtmgr's networks, and those of the host's own that networks join."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_network

from pyroute2 import IPRoute

from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import bridge_name, mac_address
from virtmgr.domain.sync import DesiredNetwork
from virtmgr.drivers.network.netlink import (
    Link,
    add_address,
    addresses,
    device_index,
    find_link,
    marked,
    netlink,
)
from virtmgr.drivers.network.spoofing import link_local
from virtmgr.drivers.sysctl import write_sysctl

_PREFIX = bridge_name("0")[:3]
_NO_LINK_LOCAL = "1"  # addr_gen_mode none: the kernel makes no link-local address itself


class Bridges:
    """Makes and removes bridges. Those with ``mark`` and a network's id as alias are virtmgr's."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def ensure_own(self, network: DesiredNetwork) -> None:
        """The bridge of a network that is not the host's own: up, with its MAC and MTU, and with
        gateway addresses where the host is the gateway.

        :raises NetworkError: the kernel refuses, or the name belongs to another device.
        """
        with netlink(f"setting up bridge {network.bridge} of network {network.name!r}") as ip:
            link = find_link(ip, network.bridge) or self._make(ip, network)
            if link.kind != "bridge" or link.alias not in ("", self._alias(network.id)):
                raise NetworkError(
                    f"network {network.name!r} needs the device name {network.bridge}, which "
                    f"another device has ({link.kind or 'hardware'}, alias {link.alias!r})",
                    hint=f"remove it ('ip link delete {network.bridge}') if it is not needed",
                )
            self._bring_up(ip, network, link)

    def join(self, bridge: str, ports: Iterable[str]) -> None:
        """Make those of the ports that there are the bridge's, where they are not.

        :raises NetworkError: the kernel refuses.
        """
        with netlink(f"joining ports to bridge {bridge}") as ip:
            master = device_index(bridge)
            for port in filter(device_index, ports):
                link = find_link(ip, port)
                if link is not None and link.master != master:
                    ip.link("set", index=link.index, master=master)

    def check_host_bridge(self, network: DesiredNetwork) -> None:
        """A BRIDGE network's device must be there already.

        :raises NetworkError: it is missing, or no bridge.
        """
        name = network.bridge
        with netlink(f"looking up bridge {name} of network {network.name!r}") as ip:
            link = find_link(ip, name)
        if link is None:
            raise NetworkError(
                f"network {network.name!r} joins bridge {name}, which this host does not have",
                code="bridge_missing",
                hint=f"make it on the host ('ip link add {name} type bridge', then add the "
                "uplink to it), or place the workload on a host that has it",
            )
        if link.kind != "bridge":
            raise NetworkError(
                f"network {network.name!r} joins {name}, which is no bridge on this host",
                code="bridge_missing",
                hint=f"make a bridge, add {name} to it, and name that bridge in the network",
            )

    def own(self, *, unless: Collection[str] = ()) -> Mapping[str, str]:
        """Network id to device name of every bridge that virtmgr made, but those in ``unless``."""
        return marked(self._mark, _PREFIX, unless=unless)

    def _alias(self, network_id: str) -> str:
        return self._mark + network_id

    def _make(self, ip: IPRoute, network: DesiredNetwork) -> Link:
        ip.link(
            "add",
            ifname=network.bridge,
            kind="bridge",
            address=mac_address(network.id),  # fixed: else it follows the ports' MACs
            br_stp_state=0,
            br_forward_delay=0,
            br_mcast_snooping=0,  # without a querier it would lose neighbour discovery
        )
        made = find_link(ip, network.bridge)
        if made is None:
            raise NetworkError(f"bridge {network.bridge} vanished while it was made")
        return made

    def _bring_up(self, ip: IPRoute, network: DesiredNetwork, link: Link) -> None:
        name = network.bridge
        write_sysctl("0", "ipv6", "conf", name, "accept_ra")
        write_sysctl(_NO_LINK_LOCAL, "ipv6", "conf", name, "addr_gen_mode")
        write_sysctl("1", "ipv4", "conf", name, "route_localnet")  # for ports published on 127/8
        wanted_mac = mac_address(network.id)
        alias = self._alias(network.id)
        if (link.mac, link.mtu, link.alias, link.up) != (wanted_mac, network.mtu, alias, True):
            ip.link(
                "set",
                index=link.index,
                address=wanted_mac,
                mtu=network.mtu,
                ifalias=alias,
                state="up",
            )
        wanted = _gateway_addresses(network)
        present = addresses(ip, link.index)
        for address in sorted(present - wanted):
            host, _, length = address.partition("/")
            ip.addr("del", index=link.index, address=host, prefixlen=int(length))
        for address in sorted(wanted - present):
            add_address(ip, link.index, address)


def _gateway_addresses(network: DesiredNetwork) -> frozenset[str]:
    """With a link-local one of our own, which is there at once and not after the first port."""
    if not network.is_routed:
        return frozenset()
    found = {f"{link_local(mac_address(network.id))}/64"}
    for gateway, cidr in ((network.gateway4, network.ipv4), (network.gateway6, network.ipv6)):
        if gateway is not None and cidr is not None:
            found.add(f"{gateway}/{ip_network(cidr, strict=False).prefixlen}")
    return frozenset(found)
