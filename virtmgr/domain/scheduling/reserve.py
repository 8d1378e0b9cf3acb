"""Room for the failure of hosts: what highly available workloads need, and what is free. Pure.

A cluster's ``reserve`` is a number of hosts, k. For every k of its hosts that fail together, the
claims of their highly available workloads are to fit into what is free on the others, by sums: how
the workloads would be cut up among hosts is not looked at. With ``free`` and ``ha`` of each host,
k failures are survived if, for each resource, the sum of all that is free is at least the sum of
``free + ha`` over the k hosts for which that is greatest: what they take away, and what they need.
Hosts that are silent have failed already: they count among the k.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from virtmgr.domain.host import HostState
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.scheduling.capacity import RESOURCES, SLACK, Amounts, Resource
from virtmgr.domain.scheduling.fleet import Fleet, Mask
from virtmgr.domain.scheduling.greatest import Greatest
from virtmgr.domain.scheduling.tally import Tally


class Room:
    """One resource of a cluster, with what the batch has taken so far."""

    def __init__(
        self, tally: Tally, cluster_id: str, resource: Resource, without: Mask | None = None
    ) -> None:
        """:param without: hosts that are taken for switched off: they neither give nor fail."""
        fleet = tally.fleet
        mine = _members(fleet, cluster_id)
        if without is not None:
            mine = mine & ~without
        self.taking = mine & fleet.where(("ready",), lambda host: host.state is HostState.READY)
        self._speaking = mine & ~_silent(fleet)
        self._limits = fleet.limits.of(resource)
        self._claimed, self._ha = tally.claimed.of(resource), tally.ha.of(resource)
        spare = self._limits.astype(float) - self._claimed
        self._free = np.where(self.taking, np.maximum(spare, 0.0), 0.0)
        self.free = float(self._free.sum())
        self._burdens = Greatest(np.where(self._speaking, self._free + self._ha, 0.0))

    @property
    def burden(self) -> npt.NDArray[np.float64]:
        """What each host's failure takes away and needs."""
        return self._burdens.values

    def look_at(self, host: int) -> None:
        """See what is claimed of a host now."""
        if self.taking[host]:
            free = max(float(self._limits[host] - self._claimed[host]), 0.0)
            self.free += free - self._free[host]
            self._free[host] = free
        if self._speaking[host]:
            self._burdens.put(host, float(self._free[host] + self._ha[host]))

    def greatest(self, count: int) -> list[float]:
        """The so many greatest burdens (fewer if there are fewer hosts), the greatest first."""
        return self._burdens.first(count)

    def needed(self, failures: int) -> float:
        """What is to be free so that so many hosts may fail."""
        return sum(self.greatest(failures))

    def survives(self, failures: int, resource: Resource) -> bool:
        """Whether so many hosts may fail."""
        return self.needed(failures) <= self.free + SLACK[resource]


def room(tally: Tally, cluster_id: str, resource: Resource) -> Room:
    """What there is; kept up to date with what the batch takes."""
    return tally.follow(("room", cluster_id, resource), lambda: Room(tally, cluster_id, resource))


def failures_left(fleet: Fleet, cluster_id: str) -> int:
    """How many hosts there is to be room for beyond those that have failed."""

    def count() -> int:
        silent = _members(fleet, cluster_id) & _silent(fleet)
        return max(0, fleet.clusters[cluster_id].reserve - int(silent.sum()))

    return fleet.remember(("failures left", cluster_id), count)


def _members(fleet: Fleet, cluster_id: str) -> Mask:
    return fleet.where(("cluster", cluster_id), lambda host: host.cluster_id == cluster_id)


def _silent(fleet: Fleet) -> Mask:
    return fleet.where(("silent",), lambda host: host.state in SILENT)


def is_kept_anywhere(tally: Tally, cluster_id: str, asked: Amounts) -> bool:
    """Whether a workload leaves enough for the failures that are to be survived on whatever host:
    then no host has to be looked at."""
    failures = failures_left(tally.fleet, cluster_id)
    return all(
        here.needed(failures) <= here.free - asked.of(resource) + SLACK[resource]
        for resource in RESOURCES
        for here in [room(tally, cluster_id, resource)]
    )


def keeps_reserve(
    tally: Tally, cluster_id: str, resource: Resource, amount: float, *, ha: bool
) -> Mask:
    """The hosts on which a workload leaves enough for the failures that are to be survived."""
    failures = failures_left(tally.fleet, cluster_id)
    here = room(tally, cluster_id, resource)
    left = here.free - amount + SLACK[resource]
    order = here.greatest(failures + 1)
    worst = sum(order[:failures])
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
        (
            room(tally, cluster_id, resource)
            if without is None
            else Room(tally, cluster_id, resource, without)
        ).survives(failures, resource)
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
