"""Helping a live migration to an end where the guest writes faster than its memory goes over. Pure.

Memory goes over in iterations: what was written during one goes in the next. The guest stands
still for the last one, when the rest fits into the downtime that it is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from virtmgr.domain.sync import MigrationLimits
from virtmgr.domain.values import format_bytes

_EASY: Final = 4  # iterations that any guest may take
_EACH: Final = 2  # further iterations that each larger downtime is given


class Act(StrEnum):
    """What is done about a migration now."""

    WAIT = "wait"
    ALLOW_DOWNTIME = "allow_downtime"  # let it stand still for longer at the end
    PAUSE = "pause"  # let it stand still now, until all is there
    GIVE_UP = "give_up"


@dataclass(frozen=True)
class Sample:
    """One look at a migration. Bytes; ``iteration`` counts from 1, 0: not at memory yet."""

    total: int
    done: int
    remaining: int
    disks_remaining: int
    iteration: int
    dirty_rate: int  # bytes a second


@dataclass(frozen=True)
class Tactics:
    """What has been done so far. ``downtime`` in milliseconds."""

    limits: MigrationLimits
    downtime: int
    allowed: bool = False  # the first downtime has been set
    steps: int = 0  # how often it was doubled
    since: int = 0  # the iteration of the last act
    last: Act = Act.WAIT

    def words(self, sample: Sample) -> str:
        """For people."""
        parts = [f"{format_bytes(sample.remaining)} to go"]
        if sample.dirty_rate:
            parts.append(f"{format_bytes(sample.dirty_rate)}/s are written meanwhile")
        if self.steps:
            parts.append(f"a downtime of {self.downtime} ms is allowed")
        if self.last is Act.PAUSE:
            parts.append("it stands still")
        return ", ".join(parts)


def begin(limits: MigrationLimits) -> Tactics:
    return Tactics(limits, limits.downtime)


def consider(tactics: Tactics, sample: Sample) -> tuple[Tactics, Act]:
    """What to do after this look, and what is remembered of it."""
    if not tactics.allowed:
        return replace(tactics, allowed=True), Act.ALLOW_DOWNTIME
    if tactics.last in (Act.PAUSE, Act.GIVE_UP):
        return tactics, Act.WAIT
    due = max(_EASY, tactics.since + _EACH)
    if sample.iteration <= due:
        return tactics, Act.WAIT
    if tactics.steps < tactics.limits.steps:
        more = replace(
            tactics,
            downtime=2 * tactics.downtime,
            steps=tactics.steps + 1,
            since=sample.iteration,
        )
        return more, Act.ALLOW_DOWNTIME
    act = Act.PAUSE if tactics.limits.pause else Act.GIVE_UP
    return replace(tactics, last=act, since=sample.iteration), act
