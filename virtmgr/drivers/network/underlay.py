"""Where this host's tunnels start: the address that other hosts send overlay frames to."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from virtmgr.domain.errors import NetworkError
from virtmgr.domain.host import Tunnel
from virtmgr.domain.network import overlay_mtu
from virtmgr.drivers.network.netlink import link_with_address, netlink


class Underlay:
    """Finds the host's tunnel address, again and again: addresses and MTUs change."""

    def __init__(self, server: str, asked: str = "") -> None:
        """Nothing is looked up yet.

        :param server: URL of the control plane.
        :param asked: the address to use; empty: the one that the host reaches ``server`` from.
        """
        self._server = server
        self._asked = asked
        self._found = ""  # kept while the way to the control plane is not known

    def tunnel(self) -> Tunnel:
        """The address and what fits through it, or the reason why there is none."""
        try:
            address = self._asked or _address_towards(self._server)
        except OSError as error:
            if not self._found:
                return Tunnel(reason=f"there is no way to {self._server}: {error}")
            address = self._found
        if ip_address(address).is_loopback or ip_address(address).is_link_local:
            return Tunnel(
                reason=f"the agent reaches its control plane from {address}, which is of no use to "
                "other hosts: give it --tunnel-address"
            )
        try:
            with netlink(f"looking for the address {address}") as ip:
                link = link_with_address(ip, address)
        except NetworkError as error:
            return Tunnel(reason=error.message)
        if link is None:
            return Tunnel(reason=f"no network device of this host has the address {address}")
        self._found = address
        return Tunnel(address=address, mtu=overlay_mtu(address, link.mtu))


def _address_towards(server: str) -> str:
    """The address that a connection to ``server`` starts from; nothing is sent.

    :raises OSError: its name is not known, or there is no route.
    """
    url = urlsplit(server)
    found = socket.getaddrinfo(url.hostname, url.port or 443, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, target = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])
