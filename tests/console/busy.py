"""Workloads that are imaginary, and use something: each its own amount, in waves."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from math import cos, pi, sin
from typing import Final

from virtmgr.domain.workload import Usage
from virtmgr.drivers.fake.driver import FakeDriver

_MIB: Final = 2**20
_PERIODS: Final = (97, 173, 311)  # seconds


class BusyDriver(FakeDriver):
    """For looking at charts and pictures; tests want the amounts of the plain one."""

    def stats(self, workload_ids: Iterable[str]) -> Mapping[str, Usage]:
        return {id: _busy(id, usage) for id, usage in super().stats(workload_ids).items()}


def _busy(id: str, usage: Usage) -> Usage:
    seconds, own = usage.at.timestamp() % 10**6, zlib.crc32(id.encode())
    period = _PERIODS[own % len(_PERIODS)]
    turn = 2 * pi * seconds / period
    load = 0.05 + own % 60 / 100  # of a CPU, on average
    done = seconds - period / (2 * pi) * cos(turn)  # its rate is 1 + sin, which is never below 0
    return Usage(
        at=usage.at,
        cpu_seconds=load * (done + period),
        memory=int((120 + own % 200) * _MIB * (1 + 0.2 * sin(turn / 3))),
        disk=(30 + own % 400) * _MIB,
        disk_read=int(load * done * _MIB),
        disk_written=int(2 * load * done * _MIB),
        network_received=int(3 * load * done * _MIB),
        network_sent=int(load * done * _MIB),
        pids=3 + own % 40,
    )
