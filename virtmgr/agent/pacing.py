"""When an agent syncs, polls and tells how much: decisions only, for agents and simulated hosts.

Times are seconds of one steady clock. What is to be jittered is answered as its least and its most;
whoever asks draws from between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from virtmgr.domain.leases import ROUTINE_SHARES
from virtmgr.domain.sync import ObservedWorkload

INTERVAL: Final = 10.0  # between syncs of which nothing is news; a third of the usual lease
WAKE_SECONDS: Final = 25.0  # that a poll lasts which does not renew the lease
BACK_OFF_MOST: Final = 15.0  # between tries of a sync that fails
JITTER: Final = (0.8, 1.0)  # shares of a pause: a fleet never syncs at once
_BACK_OFF_FIRST: Final = 0.5
_DOUBLINGS: Final = 16  # more change nothing, and after a thousand there is no such float
_USAGE_SHARE: Final = 0.5  # of a pause: sooner, syncs do not tell again what is used
_LEASE_PARTS: Final = 3  # syncs in the time of a lease that something hangs on


def within_lease(seconds: float, lease: float, *, guarded: bool) -> float:
    """``seconds``, or less where the lease has to be renewed by syncs.

    :param lease: seconds that the last sync was granted; 0: none yet.
    :param guarded: whether something is highly available here, and ends with the lease.
    """
    return min(seconds, lease / _LEASE_PARTS) if guarded and lease else seconds


def back_off(failures: int, longest: float) -> tuple[float, float]:
    """The pause after so many failures in a row, from the least to the most: it doubles each time.

    :param longest: ``BACK_OFF_MOST``, or what the lease leaves of it.
    """
    most = min(longest, _BACK_OFF_FIRST * 2.0 ** min(failures - 1, _DOUBLINGS))
    return most / 2, most


def poll_seconds(*, renewing: bool) -> tuple[float, float]:
    """How long a poll lasts, from the least to the most."""
    least, most = JITTER
    return (least * INTERVAL, most * INTERVAL) if renewing else (WAKE_SECONDS, WAKE_SECONDS)


@dataclass(frozen=True)
class Pace:
    """How often a host syncs without news.

    While polls renew its lease, the control plane says how long syncs may wait (``allowed``); where
    they do not, it is ``INTERVAL``, which renews the lease. A poll that should have renewed it and
    did not is not tried again before ``beats_from``.
    """

    allowed: float = 0.0
    beats_from: float = -math.inf

    @property
    def routine(self) -> float:
        """Seconds between syncs of which nothing is news, at most."""
        return max(INTERVAL, self.allowed)

    @property
    def is_beating(self) -> bool:
        """Whether polls renew the lease, so that syncs need not."""
        return self.routine > INTERVAL

    @property
    def grace(self) -> float:
        """Seconds by which a sync of which nothing is news may be late, for a poll to end before:
        then it goes over the poll's connection, and none is made for it."""
        return INTERVAL if self.is_beating else 0.0

    def share(self, die: float) -> float:
        """Of ``routine``, after which such a sync is sent.

        :param die: drawn for each pause, evenly from 0 to 1.
        """
        least, most = ROUTINE_SHARES if self.is_beating else JITTER
        return least + die * (most - least)

    def is_due_between_polls(self, since: float, share: float) -> bool:
        """Whether such a sync is to be sent now that a poll has ended.

        :param since: seconds from the last sync.
        :param share: of ``routine``, as drawn.
        """
        return self.is_beating and since >= share * self.routine

    def may_beat(self, clock: float, *, guarded: bool) -> bool:
        """Whether the next poll is to renew the lease. One that something hangs on counts from when
        it was asked for, and a poll is answered late: there it is renewed by syncs."""
        return clock >= self.beats_from and not guarded

    def polling(self, *, renewing: bool) -> Self:
        """As a poll is sent: one that does not renew leaves that to syncs."""
        return self if renewing else replace(self, allowed=0.0)

    def polled(self, clock: float, pause: float | None) -> Self:
        """After a poll that was to renew the lease.

        :param pause: that the control plane allows from now on; None: it did not renew it, or did
            not answer. Then syncs do, and polls try again later.
        """
        if pause is not None:
            return replace(self, allowed=pause)
        return type(self)(beats_from=clock + INTERVAL)

    def tells_usage(self, since: float) -> bool:
        """Whether usage and pools are told again, so long after they last were."""
        return since >= min(self.share(0.0), _USAGE_SHARE) * self.routine

    def is_brief(
        self, news: Sequence[ObservedWorkload], *, first: bool, guarded: bool, since: float
    ) -> bool:
        """Whether a sync need not be answered with networks and removals. What is gone leaves its
        networks, so they matter then.

        :param first: the control plane has not heard of this agent yet.
        :param since: the last answer with them.
        """
        if first or any(one.gone for one in news):
            return False
        return (bool(news) or guarded) and since < self.routine
