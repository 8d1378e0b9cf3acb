"""Which frames of an overlay go through which tunnel, and what changes in that: pure decisions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from virtmgr.domain.sync import DesiredNetwork, NetworkName
from virtmgr.drivers.network.spoofing import link_local

Pairs = frozenset[tuple[str, str]]
"""Keys with their values, as the kernel may have them: a key can come with several."""


@dataclass(frozen=True)
class Forwarding:
    """What a host's kernel knows of an overlay's members on other hosts."""

    tunnels: Pairs = frozenset()  # MAC, tunnel address of its host: the VXLAN device's table
    ports: Pairs = frozenset()  # MAC, nothing: frames for it leave the bridge by the VXLAN device
    neighbours: Pairs = frozenset()  # address, MAC: what is answered here when a guest asks for it


@dataclass(frozen=True)
class Changes:
    """How one table gets from what it holds to what it should hold."""

    removed: Pairs
    put: Pairs  # replaces what its key has


def forwarding(network: DesiredNetwork) -> Forwarding:
    """What the host should know of ``network``; members that its tunnel cannot reach left out."""
    remote = reachable(network)
    return Forwarding(
        tunnels=frozenset((each.mac.lower(), each.tunnel or "") for each in remote),
        ports=frozenset((each.mac.lower(), "") for each in remote),
        neighbours=frozenset(
            (address, each.mac.lower())
            for each in remote
            for address in (each.ipv4, each.ipv6, link_local(each.mac) if each.ipv6 else None)
            if address is not None
        ),
    )


def reachable(network: DesiredNetwork) -> tuple[NetworkName, ...]:
    """The members on other hosts whose tunnels speak the IP version of this host's."""
    return tuple(each for each in elsewhere(network) if _same_version(each, network))


def out_of_reach(network: DesiredNetwork) -> tuple[NetworkName, ...]:
    """The members on other hosts whose tunnels speak the other one."""
    return tuple(each for each in elsewhere(network) if not _same_version(each, network))


def elsewhere(network: DesiredNetwork) -> tuple[NetworkName, ...]:
    """The members on other hosts."""
    return tuple(each for each in network.names if each.tunnel is not None)


def changes(present: Pairs, wanted: Pairs) -> Changes:
    """Only what differs. A key that gets another value has one of the two at each moment."""
    put, stale = wanted - present, present - wanted
    values = Counter(key for key, _ in present)
    replaced = {key for key, _ in put if values[key] == 1}
    return Changes(frozenset(pair for pair in stale if pair[0] not in replaced), put)


def _same_version(member: NetworkName, network: DesiredNetwork) -> bool:
    return (":" in (member.tunnel or "")) == (":" in (network.tunnel or ""))
