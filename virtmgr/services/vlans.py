"""Networks of type ``vlan``: which hosts can take part in them."""

from __future__ import annotations

from collections.abc import Iterable

from virtmgr.domain.errors import NoPlacement
from virtmgr.domain.host import Host
from virtmgr.domain.network import Network, NetworkType


def needs_vlans(networks: Iterable[Network]) -> bool:
    return any(network.type is NetworkType.VLAN for network in networks)


def makes_vlans(host: Host) -> bool:
    """Whether the host's kernel does, and its agent knows the type: it has said so."""
    return host.facts.get("kernel_features", {}).get("vlan") is True


def check_host(host: Host, networks: Iterable[Network], what: str) -> None:
    """Refuse NICs on VLANs that the host cannot make.

    :param what: is being done, for the error.
    :raises NoPlacement: its kernel or its agent cannot.
    """
    if needs_vlans(networks) and not makes_vlans(host):
        raise NoPlacement(
            f"{what}: host {host.name!r} cannot make VLANs",
            code="no_vlan",
            hint="load the kernel module 8021q there, upgrade its agent and restart it, or use "
            "another network",
        )
