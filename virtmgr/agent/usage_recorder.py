"""What was used, minute by minute, until the control plane has it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from virtmgr.domain.usage_history import (
    MINUTE,
    QUARTER,
    Measured,
    UsageSlice,
    averaged,
    end_of_step,
    joined,
)

_MOST_UNSENT: Final = 80  # an hour, where the control plane is away for longer the latest
_AT_ONCE: Final = 20  # slices of one sync


class UsageRecorder:
    """Used by the agent's main loop only."""

    def __init__(self) -> None:
        self._measured: list[Measured] = []
        self._minutes: list[UsageSlice] = []  # of the quarter that has begun
        self._unsent: list[UsageSlice] = []

    def note(self, measured: Measured) -> None:
        """Take in a measurement; a minute that it is the first after is over."""
        if self._measured:
            before = self._measured[-1].at
            if measured.at <= before:  # the clock was set back: begin anew
                self._measured = [measured]
                return
            end = end_of_step(before, MINUTE)
            if measured.at >= end:
                self._measured.append(measured)
                self._finish(averaged(self._measured, end))
                self._measured = [measured]
                return
        self._measured.append(measured)

    def take(self) -> tuple[UsageSlice, ...]:
        """The oldest that have not been acknowledged."""
        return tuple(self._unsent[:_AT_ONCE])

    def acknowledge(self, slices: tuple[UsageSlice, ...]) -> None:
        """The control plane has these, which ``take`` gave."""
        known = {id(one) for one in slices}
        self._unsent = [one for one in self._unsent if id(one) not in known]

    def _finish(self, minute: UsageSlice) -> None:
        if self._minutes and _quarter(self._minutes[-1]) != _quarter(minute):
            self._close_quarter()  # nothing was measured when it ended
        self._minutes.append(minute)
        self._unsent.append(minute)
        if minute.end == _quarter(minute):
            self._close_quarter()
        self._unsent = self._unsent[-_MOST_UNSENT:]

    def _close_quarter(self) -> None:
        self._unsent.append(joined(self._minutes, _quarter(self._minutes[-1])))
        self._minutes = []


def _quarter(minute: UsageSlice) -> datetime:
    """When the quarter of an hour ends that a minute is part of."""
    return end_of_step(minute.end - timedelta(seconds=1), QUARTER)
