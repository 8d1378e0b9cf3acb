"""Usage of all running VMs from one call to libvirt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import libvirt

from virtmgr.domain.workload import Usage

_GROUPS = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
_FILTER = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)


def collect(connection: Any) -> Mapping[str, Mapping[str, Any]]:
    """libvirt's statistics of every running domain, by UUID; one that is busy tells less."""
    records = connection.getAllDomainStats(_GROUPS, _FILTER)
    return {domain.UUIDString(): statistics for domain, statistics in records}


def usage(statistics: Mapping[str, Any], at: datetime, disk: int) -> Usage:
    """``statistics`` (virConnectGetAllDomainStats) as a Usage; ``disk``: bytes of the root disk."""

    def total(group: str, item: str) -> int:
        count = int(statistics.get(f"{group}.count", 0))
        return sum(int(statistics.get(f"{group}.{i}.{item}", 0)) for i in range(count))

    return Usage(
        at=at,
        cpu_seconds=int(statistics.get("cpu.time", 0)) / 1e9,
        memory=_memory(statistics),
        disk=disk,
        disk_read=total("block", "rd.bytes"),
        disk_written=total("block", "wr.bytes"),
        network_received=total("net", "rx.bytes"),
        network_sent=total("net", "tx.bytes"),
    )


def _memory(statistics: Mapping[str, Any]) -> int:
    """Bytes that the guest uses, if its balloon driver tells, or that QEMU has of the host."""
    available = statistics.get("balloon.available")
    unused = statistics.get("balloon.usable", statistics.get("balloon.unused"))
    if available is not None and unused is not None:
        return max(0, int(available) - int(unused)) * 1024
    return int(statistics.get("balloon.rss", 0)) * 1024
