"""What a plan is made from, and the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.rebalancing.measure import Balance
from virtmgr.domain.scheduling import PlacementRequest
from virtmgr.domain.workload import Reason

MOST_MOVES: Final = 20
AT_ONCE: Final = 2


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What is asked for.

    ``threshold`` is how far the claimed share of a host may be from the cluster's, 0 to 1.
    """

    cluster_id: str
    threshold: float = 0.2
    most_moves: int = MOST_MOVES
    cold: bool = False  # also workloads that cannot go while they run


@dataclass(frozen=True, kw_only=True)
class Movable:
    """A workload that is on a host of the cluster.

    ``request`` is what it would be placed by anew, its own claims in it;
    ``request.live_host_ids`` are the hosts that it can go to while it runs.
    """

    request: PlacementRequest
    host_id: str
    why_not: Reason | None = None  # why it is not moved at all
    only_live: bool = False  # it may not be stopped for it


@dataclass(frozen=True, kw_only=True)
class Move:
    """One workload that goes from one host to another."""

    workload_id: str
    workload_name: str
    project_id: str
    source_id: str
    target_id: str
    live: bool
    why: str  # for people


@dataclass(frozen=True, kw_only=True)
class WhyNot:
    """A workload whose move would help, and why it stays."""

    workload_id: str
    workload_name: str
    project_id: str
    host_id: str
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class RebalancePlan:
    """The moves in their order, what they do, and why there are not more of them."""

    policy: SchedulingPolicy
    moves: tuple[Move, ...]
    before: Balance
    after: Balance
    reasons: tuple[Reason, ...] = ()
    why_not: tuple[WhyNot, ...] = ()
