"""What a running container uses."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from virtmgr.domain.workload import Usage
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


def disk_used(mount_point: Path) -> int:
    """Bytes in use on a file system; 0 if it is gone."""
    try:
        status = os.statvfs(mount_point)
    except FileNotFoundError:
        return 0
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def usage(cgroups: Cgroups, place: Place, run: Run, now: datetime) -> Usage:
    counters = cgroups.usage(place.workload_id)
    try:
        received, sent = parse_net_dev(Path(f"/proc/{run.pid}/net/dev").read_text())
    except OSError:  # it ended a moment ago
        received = sent = 0
    return Usage(
        at=now,
        cpu_seconds=counters.cpu_seconds,
        memory=counters.memory,
        disk=disk_used(place.disk_mount),
        disk_read=counters.disk_read,
        disk_written=counters.disk_written,
        network_received=received,
        network_sent=sent,
        pids=counters.pids,
    )
