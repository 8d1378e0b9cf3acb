"""How a whole installation is: sizes and counts of what there is, and what needs a person. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from virtmgr.domain.host import HostState
from virtmgr.domain.scheduling.capacity import Amounts, Overcommit, limits
from virtmgr.domain.workload import Init, Kind, State


class HostSize(NamedTuple):
    """A host as sums need it: no entity, for there may be many."""

    id: str
    name: str
    cluster_id: str
    state: HostState
    capacity: Amounts
    claimed: Amounts


@dataclass(frozen=True)
class WorkloadCount:
    """How many workloads are of one sort."""

    kind: Kind
    init: Init | None
    state: State
    count: int


@dataclass(frozen=True)
class Totals:
    """Sums over hosts. ``limit`` is what may be claimed, overcommit included; ``free`` is what new
    workloads may still claim: on hosts that are ready only."""

    capacity: Amounts
    limit: Amounts
    claimed: Amounts
    free: Amounts


NOTHING = Amounts(0.0, 0, 0)
_NO_TOTALS = Totals(NOTHING, NOTHING, NOTHING, NOTHING)


def totals(hosts: Iterable[HostSize], overcommit: Overcommit) -> Totals:
    """The sums over hosts of one cluster."""
    found = _NO_TOTALS
    for host in hosts:
        limit = limits(host.capacity, overcommit)
        ready = host.state is HostState.READY
        free = _at_least_nothing(limit - host.claimed) if ready else NOTHING
        found = added(found, Totals(host.capacity, limit, host.claimed, free))
    return found


def added(one: Totals, other: Totals) -> Totals:
    """The sums over the hosts of both."""
    return Totals(
        one.capacity + other.capacity,
        one.limit + other.limit,
        one.claimed + other.claimed,
        one.free + other.free,
    )


def sum_of(parts: Iterable[Totals]) -> Totals:
    """The sums over the hosts of all."""
    found = _NO_TOTALS
    for part in parts:
        found = added(found, part)
    return found


def by_state(hosts: Iterable[HostSize]) -> Mapping[HostState, int]:
    """How many hosts are in each state; states without any are left out."""
    counts = Counter(host.state for host in hosts)
    return {state: counts[state] for state in HostState if counts[state]}


def _at_least_nothing(amounts: Amounts) -> Amounts:
    return Amounts(max(0.0, amounts.vcpus), max(0, amounts.memory), max(0, amounts.disk))


class Severity(StrEnum):
    CRITICAL = "critical"  # something does not run, or is not protected
    WARNING = "warning"  # it will be so if nobody does anything


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that needs a person. The list ``noun`` with ``filters`` shows all of it."""

    code: str
    severity: Severity
    message: str
    hint: str
    count: int
    noun: str  # hosts, operations, …: the list's path
    filters: Mapping[str, Any] = field(default_factory=dict)
    names: Sequence[str] = ()  # of the first few


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is looked for, as a list with filters; any that is found is an alert."""

    code: str
    severity: Severity
    noun: str
    filters: Mapping[str, Any]
    one: str  # the message where one is found
    many: str  # the message where more are; {count}
    hint: str

    def alert(self, count: int, names: Sequence[str]) -> Alert:
        """What is told if so many were found."""
        return Alert(
            code=self.code,
            severity=self.severity,
            message=self.one if count == 1 else self.many.format(count=count),
            hint=self.hint,
            count=count,
            noun=self.noun,
            filters=self.filters,
            names=tuple(names),
        )
