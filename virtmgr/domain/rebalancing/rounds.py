"""When a cluster has been out of balance for long enough: what a moment brings is left alone.

The control plane that leads looks once a ``ROUND``. Rounds in a row are counted in the inventory,
so that a change of the leader does not forget them.
"""

from __future__ import annotations

from typing import Final

from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.rebalancing.measure import NOTHING, Scale
from virtmgr.domain.scheduling import Amounts, Fleet
from virtmgr.domain.scheduling.capacity import RESOURCES, stays_within

ROUND: Final = 60.0
"""Seconds between looks."""
PATIENCE: Final = 5
"""Rounds in a row after which a plan is made, and again after as many more."""


def counted(rounds: int, out: bool) -> int:
    """The rounds in a row, after one more look."""
    return rounds + 1 if out else 0


def is_due(rounds: int) -> bool:
    """Whether a plan is to be made in this round."""
    return rounds > 0 and rounds % PATIENCE == 0


def is_told(rounds: int, proposed_moves: int) -> bool:
    """Whether people are to be told: it lasts, and a plan would help."""
    return rounds >= PATIENCE and proposed_moves > 0


def is_out(fleet: Fleet, cluster_id: str, threshold: float) -> bool:
    """Whether a cluster is out of balance, by its hosts' sums alone: what can be done about it, a
    plan tells. For ``pack``: whether the others in use have room for all that is on one of them."""
    scale = Scale(fleet, cluster_id, threshold)
    if scale.policy is not SchedulingPolicy.PACK:
        return scale.imbalance(fleet.claimed) > NOTHING
    used = [
        index
        for index in range(len(fleet))
        if scale.taking[index] and _claims_anything(fleet, index)
    ]
    free = {index: _free(fleet, index) for index in used}
    whole = sum(free.values(), start=Amounts(0.0, 0, 0))
    return any(
        _holds(whole - free[index], fleet.claimed.row(index)) for index in used if len(used) > 1
    )


def _free(fleet: Fleet, index: int) -> Amounts:
    left = fleet.limits.row(index) - fleet.claimed.row(index)
    return Amounts(max(0.0, left.vcpus), max(0, left.memory), max(0, left.disk))


def _holds(free: Amounts, wanted: Amounts) -> bool:
    return all(stays_within(0, wanted.of(name), free.of(name), name) for name in RESOURCES)


def _claims_anything(fleet: Fleet, index: int) -> bool:
    claimed = fleet.claimed.row(index)
    return bool(claimed.vcpus > 0 or claimed.memory > 0)
