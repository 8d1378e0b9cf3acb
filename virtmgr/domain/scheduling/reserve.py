"""Room for the failure of hosts: what highly available workloads need, and what is free. Pure.

A cluster's ``reserve`` is a number of hosts, k. For every k of its hosts that fail together, the
claims of their highly available workloads are to fit into what is free on the others, by sums: how
the workloads would be cut up among hosts is not looked at. With ``free`` and ``ha`` of each host,
k failures are survived if, for each resource, the sum of all that is free is at least the sum of
``free + ha`` over the k hosts for which that is greatest: what they take away, and what they need.
Hosts that are silent have failed already: they count among the k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from virtmgr.domain.host import HostState
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.scheduling.capacity import RESOURCES, SLACK, Resource
from virtmgr.domain.scheduling.fleet import Fleet, Mask
from virtmgr.domain.scheduling.tally import Tally

_Amounts = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Room:
    """One resource of a cluster. ``burden``: what each host's failure takes away and needs."""

    free: float
    burden: _Amounts
    taking: Mask  # hosts that new workloads can go to

    def needed(self, failures: int) -> float:
        """What is to be free so that so many hosts may fail."""
        return float(self.greatest(failures).sum())

    def greatest(self, count: int) -> _Amounts:
        """The so many greatest burdens (fewer if there are fewer hosts), the greatest first."""
        if 0 < count < len(self.burden):
            return np.sort(np.partition(self.burden, -count)[-count:])[::-1]
        return np.sort(self.burden)[::-1][:count]

    def survives(self, failures: int, resource: Resource) -> bool:
        """Whether so many hosts may fail."""
        return self.needed(failures) <= self.free + SLACK[resource]


def room(tally: Tally, cluster_id: str, resource: Resource, without: Mask | None = None) -> Room:
    """What there is, with what the batch has taken so far.

    :param without: hosts that are taken for switched off: they give nothing and do not fail.
    """
    fleet = tally.fleet
    mine = _members(fleet, cluster_id)
    if without is not None:
        mine = mine & ~without
    taking = mine & fleet.where(("ready",), lambda host: host.state is HostState.READY)
    spare = fleet.limits.of(resource).astype(float) - tally.claimed.of(resource)
    free = np.where(taking, np.maximum(spare, 0.0), 0.0)
    speaking = mine & ~_silent(fleet)
    burden = np.where(speaking, free + tally.ha.of(resource), 0.0)
    return Room(float(free.sum()), burden, taking)


def failures_left(fleet: Fleet, cluster_id: str) -> int:
    """How many hosts there is to be room for beyond those that have failed."""
    silent = _members(fleet, cluster_id) & _silent(fleet)
    return max(0, fleet.clusters[cluster_id].reserve - int(silent.sum()))


def _members(fleet: Fleet, cluster_id: str) -> Mask:
    return fleet.where(("cluster", cluster_id), lambda host: host.cluster_id == cluster_id)


def _silent(fleet: Fleet) -> Mask:
    return fleet.where(("silent",), lambda host: host.state in SILENT)


def keeps_reserve(
    tally: Tally, cluster_id: str, resource: Resource, amount: float, *, ha: bool
) -> Mask:
    """The hosts on which a workload leaves enough for the failures that are to be survived."""
    failures = failures_left(tally.fleet, cluster_id)
    here = room(tally, cluster_id, resource)
    left = here.free - amount + SLACK[resource]
    order = here.greatest(failures + 1)
    worst = float(order[:failures].sum())
    if ha or not failures:
        return np.full(len(tally.fleet), worst <= left)
    # On one of the worst hosts, it is in its own host's way: that host takes less away.
    last, following = order[failures - 1 : failures + 1] if failures < len(order) else (0.0, 0.0)
    is_worst = here.burden >= last
    without = worst - here.burden + np.maximum(here.burden - amount, following)
    mask: Mask = np.where(is_worst, without, worst) <= left
    return mask


def is_kept(tally: Tally, cluster_id: str, without: Mask | None = None) -> bool:
    """Whether there is room for the failures that the cluster's reserve asks for.

    :param without: hosts that are taken for switched off.
    """
    failures = failures_left(tally.fleet, cluster_id)
    return all(
        room(tally, cluster_id, resource, without).survives(failures, resource)
        for resource in RESOURCES
    )


def survived(tally: Tally, cluster_id: str) -> int:
    """How many further hosts of a cluster may fail now."""
    rooms = {resource: room(tally, cluster_id, resource) for resource in RESOURCES}
    hosts = int(next(iter(rooms.values())).taking.sum())
    count = 0
    while count < hosts - 1 and all(
        here.survives(count + 1, resource) for resource, here in rooms.items()
    ):
        count += 1
    return count
