"""What hosts and workloads have used: averages over minutes for an hour, over quarters for a day.

Agents measure and average; the control plane keeps. So a history costs one row a host and minute,
however many workloads there are, and has no gap where the control plane was away for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from pydantic import Field

from virtmgr.domain.values import Value
from virtmgr.domain.workload import Usage

MINUTE: Final = 60  # seconds of a step
QUARTER: Final = 15 * 60
KEPT: Final[Mapping[int, timedelta]] = {
    MINUTE: timedelta(hours=1, minutes=5),
    QUARTER: timedelta(days=1, minutes=15),
}
"""For how long steps of each length are kept."""

_AHEAD: Final = timedelta(minutes=2)  # that a host's clock may be fast


class UsagePoint(Value):
    """What something used during one step."""

    cpus: float | None = None  # on average; 1 is one whole CPU. None: unknown
    memory: int = Field(0, ge=0)  # bytes, on average
    disk: int = Field(0, ge=0)  # bytes used at the end
    disk_read: float | None = None  # bytes a second, as those that follow. None: unknown
    disk_written: float | None = None
    network_received: float | None = None
    network_sent: float | None = None


class UsageSlice(Value):
    """One step of a host and of what ran on it."""

    end: datetime
    seconds: int  # MINUTE or QUARTER
    host: UsagePoint | None = None
    workloads: dict[str, UsagePoint] = Field(default_factory=dict)  # by id


@dataclass(frozen=True)
class TimedPoint:
    """A point of one host's or workload's history."""

    end: datetime
    point: UsagePoint


@dataclass(frozen=True)
class Measured:
    """All that a host measures at one moment; its counters are those of ``Usage``."""

    at: datetime
    host: Usage | None = None
    workloads: Mapping[str, Usage] = field(default_factory=dict)


def end_of_step(at: datetime, seconds: int) -> datetime:
    """When the step ends that a moment is in: whole minutes and quarters of the clock."""
    return datetime.fromtimestamp((int(at.timestamp()) // seconds + 1) * seconds, UTC)


def averaged(measured: Sequence[Measured], end: datetime) -> UsageSlice:
    """The minute that ended at ``end``.

    :param measured: in order; the first is the last of the minute before, where there was one.
    """
    ids = {id for one in measured[1:] for id in one.workloads} if len(measured) > 1 else set()
    points = {
        id: point
        for id in ids
        if (point := _point([one.workloads.get(id) for one in measured])) is not None
    }
    host = _point([one.host for one in measured]) if len(measured) > 1 else None
    return UsageSlice(end=end, seconds=MINUTE, host=host, workloads=points)


def joined(slices: Sequence[UsageSlice], end: datetime) -> UsageSlice:
    """The quarter of an hour that ended at ``end``, of its minutes."""
    ids = {id for one in slices for id in one.workloads}
    points = {id: _mean(one.workloads.get(id) for one in slices) for id in ids}
    hosts = [one.host for one in slices if one.host is not None]
    return UsageSlice(
        end=end, seconds=QUARTER, host=_mean(hosts) if hosts else None, workloads=points
    )


def step_for(since: datetime, now: datetime) -> int:
    """The finest steps that are kept since then, in seconds."""
    return MINUTE if now - since <= KEPT[MINUTE] else QUARTER


def is_kept(one: UsageSlice, now: datetime) -> bool:
    """Whether a slice is of a length and a time that are kept."""
    kept = KEPT.get(one.seconds)
    return kept is not None and now - kept <= one.end <= now + _AHEAD


def _point(usages: Sequence[Usage | None]) -> UsagePoint | None:
    """What was used between the first and the last; None: nothing was measured after the first."""
    later = [usage for usage in usages[1:] if usage is not None]
    if not later:
        return None
    grown = [
        (before, after)
        for before, after in pairwise(usage for usage in usages if usage is not None)
        if after.cpu_seconds >= before.cpu_seconds and after.at > before.at
    ]  # what began anew in between counts from 0
    return UsagePoint(
        cpus=_rate(grown, "cpu_seconds"),
        memory=sum(usage.memory for usage in later) // len(later),
        disk=later[-1].disk,
        disk_read=_rate(grown, "disk_read"),
        disk_written=_rate(grown, "disk_written"),
        network_received=_rate(grown, "network_received"),
        network_sent=_rate(grown, "network_sent"),
    )


def _rate(pairs: Sequence[tuple[Usage, Usage]], counter: str) -> float | None:
    seconds = sum((after.at - before.at).total_seconds() for before, after in pairs)
    if seconds <= 0:
        return None
    grown = sum(
        max(0, getattr(after, counter) - getattr(before, counter)) for before, after in pairs
    )
    return float(round(grown / seconds, 4))


def _mean(points: Iterable[UsagePoint | None]) -> UsagePoint:
    known = [point for point in points if point is not None]
    return UsagePoint(
        cpus=_known_mean([point.cpus for point in known]),
        memory=sum(point.memory for point in known) // len(known),
        disk=known[-1].disk,
        disk_read=_known_mean([point.disk_read for point in known]),
        disk_written=_known_mean([point.disk_written for point in known]),
        network_received=_known_mean([point.network_received for point in known]),
        network_sent=_known_mean([point.network_sent for point in known]),
    )


def _known_mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None
