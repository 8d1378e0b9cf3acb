"""How long hosts have not renewed their leases, without trusting any clock's time of day. Pure.

Whoever watches compares what it reads with what it read before, and measures with its own steady
clock. So a stepped clock, here or on another control plane, never makes a lease look old.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

USUAL: Final = timedelta(seconds=30)
"""For how long a host may go without a sync that has no highly available workloads."""

STEP: Final = 2.0
"""Seconds between two looks that count at most: in a longer break the watcher saw nothing, and
hosts may have been unable to renew."""


@dataclass(frozen=True)
class HostLease:
    """A host's lease as it is read; ``renewal`` counts its syncs."""

    host_id: str
    renewal: int
    seconds: float


@dataclass(frozen=True)
class Seen:
    """A renewal, and for how many seconds it was looked at."""

    lease: HostLease
    age: float


class LeaseWatch:
    """What one watcher has seen. It forgets nothing that counts when it restarts: it waits anew."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._looked: float | None = None

    def look(self, leases: Iterable[HostLease], begun: float, ended: float) -> Mapping[str, Seen]:
        """Take in what was read, and how old every lease is at least.

        :param begun: when the reading began, in seconds of a clock that is never stepped.
        :param ended: when it ended. A renewal may be as young as that when it is first seen.
        """
        passed = 0.0 if self._looked is None else min(max(begun - self._looked, 0.0), STEP)
        self._looked = ended
        self._seen = {lease.host_id: self._aged(lease, passed) for lease in leases}
        return self._seen

    def _aged(self, lease: HostLease, passed: float) -> Seen:
        before = self._seen.get(lease.host_id)
        if before is None or before.lease != lease:
            return Seen(lease, 0.0)
        return Seen(lease, before.age + passed)


ROUTINE_A_SECOND: Final = 25.0
"""Syncs of a whole fleet, of which nothing is news, that are to come in a second on the mean."""

ROUTINE_SHARES: Final = (0.3, 1.0)
"""Of the pause between two of them, which is drawn anew for each: hosts that came up at once are
spread over most of it from the first on, and no wave of them comes again and again."""

_ROUTINE: Final = 10.0  # seconds between two of a host, in a fleet that is not large


def routine_pause(hosts: int) -> float:
    """Seconds between two syncs of a host of which nothing is news, at most: what its workloads
    use.

    Of a large fleet each host says so less often, so that the work of it has a bound.
    """
    return max(_ROUTINE, hosts / ROUTINE_A_SECOND / statistics.mean(ROUTINE_SHARES))


_GATHERED: Final = (0.05, 0.25)  # seconds, in a small fleet and in a large one
_LARGE: Final = 400.0  # heartbeats a second, in one second of gathering


def gather_seconds(came: int, since: float) -> float:
    """Seconds for which heartbeats are gathered, to be renewed together.

    Each batch is a transaction, however many are in it. With some 200 hosts it is 0.05 s, with
    1,000 and more 0.25 s: a lease lasts 30 s and is renewed each 10 s, from when it is written,
    and an agent waits 30 s longer for an answer than its poll lasts, so neither suffers. What does
    is a wake that comes meanwhile, of one host in forty: so it is not longer.

    :param came: heartbeats of the last batch.
    :param since: seconds from the batch before it.
    """
    least, most = _GATHERED
    return min(max(came / since / _LARGE, least), most) if since > 0 else most
