"""Fence devices: what cuts the power of a host from outside of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from virtmgr.domain.errors import Unavailable
from virtmgr.domain.host import Host, HostState
from virtmgr.domain.host_states import COMING, SILENT

ANY: Final = "any"
"""``via``: whichever other host of the cluster is ready."""

MOST_RELAYS: Final = 3
"""Hosts that are tried for one device: each that is down costs seconds."""

RELAY: Final = "fence"
"""The action of a stream that an agent relays to a fence device."""


class FenceAgent(StrEnum):
    """How a device is spoken to."""

    IPMI = "ipmi"  # IPMI 2.0 over LAN
    REDFISH = "redfish"  # DMTF DSP0266


class Transport(StrEnum):
    """What a device is spoken to over."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(kw_only=True)
class FenceDevice:
    """One device of a host. ``sealed`` is its password (``ports.vault``).

    Devices of the lowest ``level`` are tried first. Those of one level belong together: the power
    is off when all of them say so (two supplies). If a level fails, the next one is tried.
    """

    id: str
    host_id: str
    name: str
    agent: FenceAgent
    address: str
    port: int
    user: str
    sealed: str
    level: int = 1
    system: str | None = None  # Redfish: path of the system; None: the only one
    verify: bool = True  # Redfish: the certificate is checked
    via: str | None = None  # id of the host that it is reached through, or ANY; None: directly
    created_at: datetime


def by_level(devices: Iterable[FenceDevice]) -> list[list[FenceDevice]]:
    """The devices in the order in which they are tried: level by level, by name within one."""
    found: dict[int, list[FenceDevice]] = {}
    for device in sorted(devices, key=lambda one: (one.level, one.name)):
        found.setdefault(device.level, []).append(device)
    return list(found.values())


def relays(device: FenceDevice, fenced: Host, hosts: Iterable[Host]) -> list[Host]:
    """The hosts through which a device is reached, in the order in which they are tried. Those that
    spoke last come first: they are the likeliest to be there.

    :param fenced: the host that the device cuts; it never is one of them.
    :raises Unavailable: there is none, and why.
    """
    others = [host for host in hosts if host.id != fenced.id]
    if device.via == ANY:
        ready = [
            host
            for host in others
            if host.state is HostState.READY and host.cluster_id == fenced.cluster_id
        ]
        if not ready:
            raise _no_relay(
                device, f"no other host of the cluster of host {fenced.name!r} is ready"
            )
        return sorted(ready, key=_spoke, reverse=True)[:MOST_RELAYS]
    named = next((host for host in others if host.id == device.via), None)
    if named is None:
        raise _no_relay(device, "the host that it is reached through is not in the inventory")
    if named.state in COMING or named.state in SILENT:
        raise _no_relay(
            device, f"host {named.name!r}, that it is reached through, is {named.state}"
        )
    return [named]


def _spoke(host: Host) -> float:
    return host.last_seen_at.timestamp() if host.last_seen_at is not None else 0.0


def _no_relay(device: FenceDevice, why: str) -> Unavailable:
    return Unavailable(
        f"fence device {device.name!r} at {device.address} cannot be reached: {why}",
        code="no_fence_relay",
        hint="reach it through another host, or directly: 'virtmgr host fence set … --via'",
    )


def why_not_relayed(address: IPv4Address | IPv6Address) -> str | None:
    """Why a host relays nothing to an address; None: it does.

    A device is another machine. What listens on the host for itself alone is nobody's device.
    """
    real = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    address = real or address
    if address.is_loopback or address.is_unspecified:
        return "it is the relaying host itself"
    if address.is_multicast or address == IPv4Address("255.255.255.255"):
        return "it is no address of one machine"
    return None
