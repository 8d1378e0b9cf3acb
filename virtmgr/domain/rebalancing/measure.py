"""How far a cluster is from where its policy wants it.

A host's load is the share of its limits (capacity × overcommit) that is claimed. ``balanced``
looks at vCPUs and memory apart, ``spread`` at their mean, as the scheduler's weighers do; disk is
not balanced. The cluster's own share, its level, is the same whatever moves within it. The
**imbalance** is the sum, over hosts, of what their loads are farther from the level than the
threshold: 0.3 is one host 30 points outside, or three 10 points. 0: every host is near enough.

``pack`` counts hosts that nothing is placed on: the more, the better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from virtmgr.domain.host import HostState, SchedulingPolicy
from virtmgr.domain.scheduling import Fleet
from virtmgr.domain.scheduling.fleet import Columns, Mask

Values = npt.NDArray[np.float64]
_MIXES: Final[Mapping[SchedulingPolicy, tuple[tuple[float, float], ...]]] = {
    SchedulingPolicy.BALANCED: ((1.0, 0.0), (0.0, 1.0)),
    SchedulingPolicy.SPREAD: ((0.5, 0.5),),
    SchedulingPolicy.PACK: ((0.5, 0.5),),
}
_NAMES: Final[Mapping[int, tuple[str, ...]]] = {2: ("vCPUs", "memory"), 1: ("vCPUs and memory",)}
NOTHING: Final = 1e-9  # rounding; no imbalance is meant


@dataclass(frozen=True)
class HostLoad:
    """Shares of a host's limits that are claimed, and how many workloads are placed there."""

    host_id: str
    host_name: str
    vcpus: float
    memory: float
    disk: float
    workloads: int


@dataclass(frozen=True)
class Balance:
    """How a cluster is: its hosts that take part, by name."""

    imbalance: float
    empty: int
    hosts: tuple[HostLoad, ...]


class Scale:
    """How a cluster's policy looks at its hosts that take part: those that are ready."""

    def __init__(self, fleet: Fleet, cluster_id: str, threshold: float) -> None:
        self.fleet = fleet
        self.threshold = threshold
        self.policy = fleet.clusters[cluster_id].policy
        self.taking: Mask = np.array(
            [h.cluster_id == cluster_id and h.state is HostState.READY for h in fleet.hosts], bool
        )
        limits = np.stack([fleet.limits.vcpus, fleet.limits.memory.astype(float)])
        self.inverse: Values = np.divide(
            1.0, limits, out=np.zeros_like(limits), where=(limits > 0) & self.taking
        )
        self.mix: Values = np.array(_MIXES[self.policy])
        whole = (limits * self.taking).sum(axis=1)
        taken = (_both(fleet.claimed) * self.taking).sum(axis=1)
        self.level: Values = self.mix @ np.divide(
            taken, whole, out=np.zeros_like(whole), where=whole > 0
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What each row of ``loads`` is of, for people."""
        return _NAMES[len(self.mix)]

    def loads(self, claimed: Columns) -> Values:
        """A row for each thing that the policy looks at, a column for each host."""
        loads: Values = self.mix @ (_both(claimed) * self.inverse)
        return loads

    def outside(self, loads: Values) -> Values:
        """How far loads are outside of what the threshold allows; the level is added by axes."""
        level = self.level.reshape(-1, *[1] * (loads.ndim - 1))
        return np.maximum(np.abs(loads - level) - self.threshold, 0.0)

    def off(self, loads: Values) -> Values:
        """The square of how far loads are from the level."""
        level = self.level.reshape(-1, *[1] * (loads.ndim - 1))
        return np.square(loads - level)

    def imbalance(self, claimed: Columns) -> float:
        """The measure of ``spread`` and ``balanced``."""
        return float(self.outside(self.loads(claimed))[:, self.taking].sum())

    def worth_looking(self, claimed: Columns) -> list[str]:
        """Ids of the hosts that moves would start from, the most promising first."""
        if self.policy is SchedulingPolicy.PACK:
            rank = self.mean_load(claimed)
        else:
            rank = -(self.loads(claimed) - self.level[:, np.newaxis]).max(axis=0)
        order = np.argsort(rank, kind="stable")
        return [self.fleet.hosts[index].id for index in order if self.taking[index]]

    def mean_load(self, claimed: Columns) -> Values:
        """The mean of the shares of vCPUs and memory, of each host."""
        mean: Values = (_both(claimed) * self.inverse).mean(axis=0)
        return mean


def balance(scale: Scale, claimed: Columns, workloads: Mapping[str, int]) -> Balance:
    """How the cluster is with these claims.

    :param workloads: how many are placed on each host, by its id.
    """
    shares = _both(claimed) * scale.inverse
    limit = scale.fleet.limits.disk
    disk = np.divide(claimed.disk, limit, out=np.zeros(len(limit)), where=limit > 0)
    loads = [
        HostLoad(
            host.id,
            host.name,
            float(shares[0, index]),
            float(shares[1, index]),
            float(disk[index]),
            workloads.get(host.id, 0),
        )
        for index, host in enumerate(scale.fleet.hosts)
        if scale.taking[index]
    ]
    return Balance(
        0.0 if scale.policy is SchedulingPolicy.PACK else scale.imbalance(claimed),
        sum(load.workloads == 0 for load in loads),
        tuple(sorted(loads, key=lambda load: load.host_name)),
    )


def counted(fleet: Fleet) -> Counter[str]:
    """How many workloads are placed on each host, or on their way to it, by its id."""
    return Counter(workload.host_id for workload in fleet.placed)


def _both(claimed: Columns) -> Values:
    return np.stack([claimed.vcpus, claimed.memory.astype(float)])
