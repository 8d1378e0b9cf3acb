"""What a running container uses."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from virtmgr.domain.workload import Filling, Usage
from virtmgr.drivers.oci.cgroups import Cgroups
from virtmgr.drivers.oci.places import Place, Run


def parse_net_dev(text: str) -> tuple[int, int]:
    """Bytes received and sent on all interfaces but lo (proc_pid_net(5))."""
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, counters = line.partition(":")
        if name.strip() != "lo":
            numbers = counters.split()
            received += int(numbers[0])
            sent += int(numbers[8])
    return received, sent


def filling(mount_point: Path) -> Filling | None:
    """How full a file system is; None if it is gone."""
    try:
        status = os.statvfs(mount_point)
    except FileNotFoundError:
        return None
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    return Filling(used=used, free=status.f_bavail * status.f_frsize)


def _volumes(place: Place) -> dict[str, Filling] | None:
    """Of those that are mounted; None: there are none."""
    if not place.volumes.exists():
        return None
    found = {target.name: filling(target) for target in place.volumes.iterdir()}
    return {id: one for id, one in found.items() if one is not None} or None


def usage(cgroups: Cgroups, place: Place, run: Run, now: datetime) -> Usage:
    counters = cgroups.usage(place.workload_id)
    try:
        received, sent = parse_net_dev(Path(f"/proc/{run.pid}/net/dev").read_text())
    except OSError:  # it ended a moment ago
        received = sent = 0
    root = filling(place.disk_mount)
    return Usage(
        at=now,
        cpu_seconds=counters.cpu_seconds,
        memory=counters.memory,
        disk=root.used if root is not None else 0,
        disk_read=counters.disk_read,
        disk_written=counters.disk_written,
        network_received=received,
        network_sent=sent,
        pids=counters.pids,
        disk_free=root.free if root is not None else None,
        volumes=_volumes(place),
    )
