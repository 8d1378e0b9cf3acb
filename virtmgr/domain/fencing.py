"""Fence devices: what cuts the power of a host from outside of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class FenceAgent(StrEnum):
    """How a device is spoken to."""

    IPMI = "ipmi"  # IPMI 2.0 over LAN
    REDFISH = "redfish"  # DMTF DSP0266


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
    created_at: datetime


def by_level(devices: Iterable[FenceDevice]) -> list[list[FenceDevice]]:
    """The devices in the order in which they are tried: level by level, by name within one."""
    found: dict[int, list[FenceDevice]] = {}
    for device in sorted(devices, key=lambda one: (one.level, one.name)):
        found.setdefault(device.level, []).append(device)
    return list(found.values())
