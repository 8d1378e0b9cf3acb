"""The 802.1Q devices of networks of type ``vlan``: one on the host's interface, in the network's
own bridge.

The bridge has no address: whoever routes the VLAN is its gateway, and the host is not in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pyroute2 import IPRoute

from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import vlan_name
from virtmgr.domain.sync import DesiredNetwork
from virtmgr.drivers.network.netlink import Link, delete_link, find_link, marked, netlink
from virtmgr.drivers.sysctl import deny_addresses

_PREFIX = vlan_name("0")[:3]


class Vlans:
    """Makes and removes VLAN devices. Those with ``mark`` and a network's id are virtmgr's."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def ensure(self, network: DesiredNetwork) -> None:
        """The network's VLAN device on its interface and its bridge, which is there: up.

        :raises NetworkError: the host has no such interface, packets are too large for it, the
            VLAN is taken on it, or the kernel refuses.
        """
        name = vlan_name(network.id)
        with netlink(f"setting up VLAN {network.vlan} of network {network.name!r}") as ip:
            interface = _interface(ip, network)
            bridge = find_link(ip, network.bridge)
            if bridge is None:
                raise NetworkError(f"bridge {network.bridge} vanished while its VLAN was made")
            link = self._device(ip, network, name, interface)
            deny_addresses(name)
            if link.master != bridge.index:
                ip.link("set", index=link.index, master=bridge.index)
            alias = self._mark + network.id
            if (link.mtu, link.alias, link.up) != (network.mtu, alias, True):
                ip.link("set", index=link.index, mtu=network.mtu, ifalias=alias, state="up")

    def own(self, *, unless: Collection[str] = ()) -> Mapping[str, str]:
        """Network id to device name of every VLAN that virtmgr made, but those in ``unless``."""
        return marked(self._mark, _PREFIX, unless=unless)

    def _device(self, ip: IPRoute, network: DesiredNetwork, name: str, interface: Link) -> Link:
        link = find_link(ip, name)
        if link is not None and link.alias not in ("", self._mark + network.id):
            raise NetworkError(
                f"network {network.name!r} needs the device name {name}, which another device has "
                f"({link.kind or 'hardware'}, alias {link.alias!r})",
                hint=f"remove it ('ip link delete {name}') if it is not needed",
            )
        if link is not None and not _is_of(ip, link, network, interface):
            delete_link(ip, name)
            link = None
        return link or _make(ip, network, name, interface)


def _interface(ip: IPRoute, network: DesiredNetwork) -> Link:
    what = f"network {network.name!r} is VLAN {network.vlan} on {network.interface}"
    interface = find_link(ip, network.interface) if network.interface else None
    if interface is None:
        raise NetworkError(
            f"{what}, which this host does not have",
            code="interface_missing",
            hint="give the host's interface that name (systemd.link(5)), or place the workload on "
            "a host that has it",
        )
    if network.mtu > interface.mtu:
        raise NetworkError(
            f"{what}, and has packets of {network.mtu} bytes; the interface carries "
            f"{interface.mtu}",
            code="mtu_too_large",
            hint=f"raise the MTU of {interface.name} and of its network to {network.mtu}, or make "
            "the network anew with a smaller mtu",
        )
    return interface


def _make(ip: IPRoute, network: DesiredNetwork, name: str, interface: Link) -> Link:
    ip.link("add", ifname=name, kind="vlan", link=interface.index, vlan_id=network.vlan)
    made = find_link(ip, name)
    if made is None:
        raise NetworkError(f"VLAN device {name} vanished while it was made")
    return made


def _is_of(ip: IPRoute, link: Link, network: DesiredNetwork, interface: Link) -> bool:
    """Whether the device is on the interface and has the network's VLAN id."""
    if link.kind != "vlan" or link.peer != interface.index:
        return False
    message = next(iter(ip.link("get", index=link.index)))
    data = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    return bool(data.get_attr("IFLA_VLAN_ID") == network.vlan)
