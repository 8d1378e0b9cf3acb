"""The VXLAN devices of overlay networks (RFC 7348), and what the kernel knows of their members.

Nothing is learned and nothing is flooded: where each member is comes from the inventory, and what a
guest asks for by broadcast (ARP, neighbour discovery) is answered on its own host.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ndmsg import (
    NTF_MASTER,
    NTF_SELF,
    NUD_NOARP,
    NUD_PERMANENT,
    NUD_REACHABLE,
)

from virtmgr.domain.errors import NetworkError
from virtmgr.domain.network import overlay_mtu, tunnel_name
from virtmgr.domain.sync import DesiredNetwork
from virtmgr.drivers.network.forwarding import (
    Changes,
    Forwarding,
    changes,
    forwarding,
    out_of_reach,
)
from virtmgr.drivers.network.netlink import (
    Link,
    delete_link,
    find_link,
    link_with_address,
    marked,
    netlink,
)
from virtmgr.drivers.network.routing import VXLAN_PORT
from virtmgr.drivers.sysctl import deny_addresses

_PREFIX = tunnel_name("0")[:3]
_QUIET = {  # nothing reaches other hosts but what is known to be there, and nothing is learned
    "learning": 0,
    "unicast_flood": 0,
    "mcast_flood": 0,
    "bcast_flood": 0,
    "neigh_suppress": 1,
}
_TRUST = 30.0  # seconds after which the kernel is asked again what its tables hold
_STATIC = NUD_NOARP | NUD_REACHABLE  # never aged; PERMANENT would say that it is the bridge's own


class Tunnels:
    """Makes and removes VXLAN devices. Those with ``mark`` and a network's id are virtmgr's."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._known: dict[str, _Known] = {}

    def forget(self) -> None:
        """Ask the kernel for everything at the next ``ensure``."""
        self._known.clear()

    def ensure(self, network: DesiredNetwork) -> None:
        """The network's VXLAN device on its bridge, which is there, knowing every member.

        :raises NetworkError: this host has no tunnel address (any more), the packets are too large
            for it, a member's host has a tunnel of the other IP version, or the kernel refuses.
        """
        name = tunnel_name(network.id)
        with netlink(f"setting up the tunnel {name} of network {network.name!r}") as ip:
            _check_underlay(ip, network)
            bridge = find_link(ip, network.bridge)
            if bridge is None:
                raise NetworkError(f"bridge {network.bridge} vanished while its tunnel was made")
            tunnel = self._device(ip, network, bridge)
            self._forward(ip, network, tunnel, bridge)
        _refuse_out_of_reach(network)

    def own(self, *, unless: Collection[str] = ()) -> Mapping[str, str]:
        """Network id to device name of every tunnel that virtmgr made, but those in ``unless``."""
        return marked(self._mark, _PREFIX, unless=unless)

    def _forward(self, ip: IPRoute, network: DesiredNetwork, tunnel: Link, bridge: Link) -> None:
        """Reading the tables back costs a second with a thousand members: not for each change."""
        known = self._known.pop(network.id, None)  # kept only if all of this is done
        if known is None or not known.holds(tunnel, bridge):
            known = _Known(_present(ip, tunnel, bridge), tunnel.index, bridge.index)
        wanted = forwarding(network)
        _bring(ip, tunnel, bridge, known.forwarding, wanted)
        self._known[network.id] = replace(known, forwarding=wanted)

    def _device(self, ip: IPRoute, network: DesiredNetwork, bridge: Link) -> Link:
        name, alias = tunnel_name(network.id), self._mark + network.id
        link = find_link(ip, name)
        if link is not None and link.alias not in ("", alias):
            raise NetworkError(
                f"network {network.name!r} needs the device name {name}, which another device has "
                f"({link.kind or 'hardware'}, alias {link.alias!r})",
                hint=f"remove it ('ip link delete {name}') if it is not needed",
            )
        if link is not None and not _is_of(ip, link, network):
            delete_link(ip, name)
            link = None
        link = link or _make(ip, network, name)
        deny_addresses(name)
        if link.master != bridge.index:
            ip.link("set", index=link.index, master=bridge.index)
        ip.brport("set", index=link.index, **_QUIET)
        if (link.mtu, link.alias, link.up) != (network.mtu, alias, True):
            ip.link("set", index=link.index, mtu=network.mtu, ifalias=alias, state="up")
        return link


def _make(ip: IPRoute, network: DesiredNetwork, name: str) -> Link:
    address = network.tunnel or ""
    local = "vxlan_local6" if ":" in address else "vxlan_local"
    ip.link(
        "add",
        ifname=name,
        kind="vxlan",
        vxlan_id=network.vni,
        vxlan_port=VXLAN_PORT,
        vxlan_learning=0,
        **{local: address},
    )
    made = find_link(ip, name)
    if made is None:
        raise NetworkError(f"tunnel {name} vanished while it was made")
    return made


def _is_of(ip: IPRoute, link: Link, network: DesiredNetwork) -> bool:
    """Whether the device has the network's identifier and starts from the host's address."""
    if link.kind != "vxlan":
        return False
    message = next(iter(ip.link("get", index=link.index)))
    data = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    local = data.get_attr("IFLA_VXLAN_LOCAL") or data.get_attr("IFLA_VXLAN_LOCAL6")
    return (data.get_attr("IFLA_VXLAN_ID"), data.get_attr("IFLA_VXLAN_PORT"), local) == (
        network.vni,
        VXLAN_PORT,
        network.tunnel,
    )


def _check_underlay(ip: IPRoute, network: DesiredNetwork) -> None:
    what = f"network {network.name!r} is an overlay between hosts"
    if network.vni is None or not network.tunnel:
        raise NetworkError(
            f"{what}, and this host has no tunnel address",
            code="no_tunnel",
            hint="'virtmgr host show' says why (facts.tunnel); see --tunnel-address of the agent",
        )
    underlay = link_with_address(ip, network.tunnel)
    if underlay is None:
        raise NetworkError(
            f"{what}, and this host does not have its tunnel address {network.tunnel} any more",
            code="no_tunnel",
            hint="bring the address back, or restart the agent with another --tunnel-address",
        )
    most = overlay_mtu(network.tunnel, underlay.mtu)
    if network.mtu > most:
        raise NetworkError(
            f"network {network.name!r} has packets of {network.mtu} bytes, the tunnel over "
            f"{underlay.name} of this host carries {most}",
            code="mtu_too_large",
            hint=f"raise the MTU of {underlay.name} and of its network to "
            f"{underlay.mtu + network.mtu - most}, or make the network anew with a smaller mtu",
        )


def _refuse_out_of_reach(network: DesiredNetwork) -> None:
    strangers = out_of_reach(network)
    if strangers:
        raise NetworkError(
            f"network {network.name!r}: workload {strangers[0].name!r} is on a host with the "
            f"tunnel address {strangers[0].tunnel}, which cannot be reached from {network.tunnel}",
            code="tunnels_differ",
            hint="give all hosts tunnel addresses of one IP version (--tunnel-address)",
        )


# ---- what the kernel knows


@dataclass(frozen=True)
class _Known:
    """What the kernel was seen to have, and was told since."""

    forwarding: Forwarding
    tunnel: int
    bridge: int
    seen_at: float = field(default_factory=time.monotonic)

    def holds(self, tunnel: Link, bridge: Link) -> bool:
        """Whether nobody else can be expected to have changed it."""
        same = (self.tunnel, self.bridge) == (tunnel.index, bridge.index)
        return same and time.monotonic() - self.seen_at < _TRUST


def _bring(
    ip: IPRoute, tunnel: Link, bridge: Link, present: Forwarding, wanted: Forwarding
) -> None:
    """Frames are led to a member before it is answered for, and as long."""
    neighbours = changes(present.neighbours, wanted.neighbours)
    ports = changes(present.ports, wanted.ports)
    tunnels = changes(present.tunnels, wanted.tunnels)
    for address, _ in neighbours.removed:
        ip.neigh("del", dst=address, ifindex=bridge.index)
    for mac, _ in ports.removed:
        with _gone_is_well():  # a guest that came while it ran: the bridge has heard it since
            ip.fdb("del", lladdr=mac, ifindex=tunnel.index, flags=NTF_MASTER, state=_STATIC)
    _tunnel(ip, tunnel, tunnels)
    for mac, _ in ports.put:
        ip.fdb("replace", lladdr=mac, ifindex=tunnel.index, flags=NTF_MASTER, state=_STATIC)
    for address, mac in neighbours.put:
        ip.neigh("replace", dst=address, lladdr=mac, ifindex=bridge.index, state=NUD_PERMANENT)


@contextmanager
def _gone_is_well() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise


def _tunnel(ip: IPRoute, tunnel: Link, wanted: Changes) -> None:
    for verb, pairs in (("del", wanted.removed), ("replace", wanted.put)):
        for mac, address in pairs:
            ip.fdb(
                verb, lladdr=mac, dst=address, ifindex=tunnel.index, flags=NTF_SELF, state=_STATIC
            )


def _present(ip: IPRoute, tunnel: Link, bridge: Link) -> Forwarding:
    tunnels, ports = set(), set()
    for entry in ip.fdb("dump", ifindex=tunnel.index):
        if entry["ifindex"] != tunnel.index:
            continue
        mac, address = entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST")
        if entry["flags"] & NTF_SELF and address is not None:
            tunnels.add((mac, str(ip_address(address))))
        elif not entry["state"] & NUD_PERMANENT and entry.get_attr("NDA_MASTER") is not None:
            ports.add((mac, ""))
    return Forwarding(frozenset(tunnels), frozenset(ports), frozenset(_neighbours(ip, bridge)))


def _neighbours(ip: IPRoute, bridge: Link) -> Iterator[tuple[str, str]]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for entry in ip.neigh("dump", family=family, ifindex=bridge.index):
            if entry["ifindex"] == bridge.index and entry["state"] & NUD_PERMANENT:
                yield entry.get_attr("NDA_DST"), entry.get_attr("NDA_LLADDR")
