"""What the host as a whole uses: proc_stat(5), proc_meminfo(5), /sys/block/*/stat, proc_net_dev."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from virtmgr.domain.workload import Usage

_SECTOR: Final = 512  # bytes; what the kernel counts in, whatever the disk's own are
_IDLE: Final = (3, 4)  # idle and waiting for disks, among the columns of /proc/stat
_GUEST: Final = 8  # from here on: counted in the columns before, too


def host_usage(data_directory: Path, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Usage:
    """What is in use now, and what was since the host's boot.

    :param data_directory: of its file system the bytes in use are ``disk``.
    :raises OSError: a file that Linux has is not to be read.
    """
    space = os.statvfs(data_directory)
    read, written = disk_bytes(sys)
    received, sent = network_bytes((proc / "net/dev").read_text(), physical(sys))
    return Usage(
        at=datetime.now(UTC),
        cpu_seconds=busy_seconds((proc / "stat").read_text(), os.sysconf("SC_CLK_TCK")),
        memory=memory_used((proc / "meminfo").read_text()),
        disk=(space.f_blocks - space.f_bfree) * space.f_frsize,
        disk_read=read,
        disk_written=written,
        network_received=received,
        network_sent=sent,
    )


def busy_seconds(stat: str, ticks: int) -> float:
    """Seconds that all CPUs together were not idle.

    :param ticks: of one second.
    """
    columns = [int(text) for text in stat.partition("\n")[0].split()[1:]]
    busy = sum(count for at, count in enumerate(columns[:_GUEST]) if at not in _IDLE)
    return busy / ticks


def memory_used(meminfo: str) -> int:
    """Bytes that cannot be had without swapping."""
    kilobytes = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in meminfo.splitlines())
        if rest.strip()
    }
    return 1024 * (kilobytes["MemTotal"] - kilobytes["MemAvailable"])


def disk_bytes(sys: Path) -> tuple[int, int]:
    """Bytes read from and written to the machine's own disks: what is built on them is counted
    there."""
    read = written = 0
    for disk in (sys / "block").glob("*"):
        if not (disk / "device").exists():
            continue
        numbers = (disk / "stat").read_text().split()
        read, written = read + int(numbers[2]), written + int(numbers[6])
    return _SECTOR * read, _SECTOR * written


def physical(sys: Path) -> frozenset[str]:
    """Interfaces with a device behind them; bridges, bonds and veths are built on these."""
    return frozenset(
        link.name for link in (sys / "class/net").glob("*") if (link / "device").exists()
    )


def network_bytes(net_dev: str, wanted: Iterable[str]) -> tuple[int, int]:
    """Bytes received and sent by these interfaces; without any, by all but lo."""
    counted = {
        name.strip(): [int(text) for text in rest.split()]
        for name, _, rest in (line.partition(":") for line in net_dev.splitlines()[2:])
    }
    names = counted.keys() & set(wanted) or counted.keys() - {"lo"}
    received, sent = (sum(counted[name][column] for name in names) for column in (0, 8))
    return received, sent
