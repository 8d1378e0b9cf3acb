"""How the policies of clusters like hosts; see docs/operator-guide.md for when to choose which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.scheduling.capacity import Resource
from virtmgr.domain.scheduling.fleet import Fleet, Hosts, Mask, Scores
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.tally import Tally

PHRASES = {
    SchedulingPolicy.SPREAD: "least claimed",
    SchedulingPolicy.PACK: "most claimed, least stranded, least taken of what is scarce there",
    SchedulingPolicy.BALANCED: "most room in the scarcer of vCPUs and memory",
}
# The figures of ``pack`` are those that packed best in ``bench.placement_quality``.
_FULL, _STRANDED, _ROOM = 0.2, 0.75, 1.5
_OPEN, _SMALL, _LARGEST = 0.175, 0.125, 2.0
_LEAST, _MOST = 1 / 3, 2.0
_TINY = 1e-9
_COMPUTE: tuple[Resource, ...] = ("vcpus", "memory")


def liked(tally: Tally, request: PlacementRequest, hosts: Hosts = slice(None), /) -> Scores:
    """How the cluster's policy likes hosts (all, or some) with the workload on them.

    With the claimed shares of vCPUs and of memory, ``spread`` is 1 − their mean, and ``balanced`` 1
    − the greater one: that is, 1 − their mean − half their difference, which likes hosts little
    used and hosts whose vCPUs and memory are used alike. For ``pack`` see ``_packed``.
    """
    fleet, policy = tally.fleet, tally.fleet.clusters[request.cluster_id].policy
    vcpus = (tally.claimed.vcpus[hosts] + request.vcpus) * _inverse(fleet, "vcpus")[hosts]
    memory = (tally.claimed.memory[hosts] + request.memory) * _inverse(fleet, "memory")[hosts]
    values: Scores
    if policy is SchedulingPolicy.SPREAD:
        values = 1 - (vcpus + memory) / 2
    elif policy is SchedulingPolicy.PACK:
        values = _packed(tally, request, vcpus, memory, hosts)
    else:
        values = 1 - np.maximum(vcpus, memory)
    return values


def _packed(
    tally: Tally, request: PlacementRequest, vcpus: Scores, memory: Scores, hosts: Hosts
) -> Scores:
    """A full host is good, one that keeps memory without the vCPUs to use it is bad (or the other
    way round), and so is one that loses much of its room: what asks for many vCPUs goes where
    memory is short, and the other way round. A host that has nothing on it yet is left empty; of
    several of those, the largest is opened first, so that there will be few.

    :param vcpus: the shares that are claimed then; so ``memory``.
    """
    build = _build(tally.fleet, request.cluster_id)
    free_vcpus, free_memory = 1 - vcpus, 1 - memory
    stranded = _stranded(build, free_vcpus, free_memory, hosts)
    lost = _lost_room(build, request, free_vcpus, free_memory, hosts)
    empty = (tally.claimed.vcpus[hosts] <= 0) & (tally.claimed.memory[hosts] <= 0)
    packed: Scores = _FULL * (vcpus + memory) / 2 - _STRANDED * stranded - _ROOM * lost
    return packed - empty * build.opening[hosts]


@dataclass(frozen=True, eq=False)
class _Build:
    """What ``pack`` knows of a cluster's hosts, whatever is on them."""

    mean_vcpus: float
    mean_memory: float
    vcpus: Scores
    """Against the mean; so ``memory``."""
    memory: Scores
    richness: Scores
    """How much more memory for each vCPU hosts have than the cluster."""
    opening: Scores
    """What speaks against a host that is empty."""


def _build(fleet: Fleet, cluster_id: str) -> _Build:
    def measure() -> _Build:
        mine = _mine(fleet, cluster_id)
        number = max(int(np.count_nonzero(mine)), 1)
        mean_vcpus, mean_memory = (
            max(_sum(fleet, name, mine) / number, _TINY) for name in _COMPUTE
        )
        vcpus, memory = fleet.limits.vcpus / mean_vcpus, fleet.limits.memory / mean_memory
        size = np.minimum((vcpus + memory) / 2, _LARGEST)
        richness = np.divide(memory, vcpus, out=np.zeros_like(memory), where=vcpus > 0)
        return _Build(
            mean_vcpus,
            mean_memory,
            vcpus,
            memory,
            np.maximum(richness, _TINY),
            _OPEN + _SMALL * (1 - size),
        )

    return fleet.remember(("build", cluster_id), measure)


def _stranded(build: _Build, free_vcpus: Scores, free_memory: Scores, hosts: Hosts) -> Scores:
    """The share of a host's vCPUs or memory that is free and of no use.

    Workloads are taken to ask for ``_LEAST`` to ``_MOST`` of the memory for each vCPU that the
    hosts of the cluster have together: flavours of 1 to 8 GiB a vCPU where hosts have 4. vCPUs
    that have less memory left beside them than the least, and memory that is more than the most,
    wait for something to leave.

    :param free_vcpus: as shares of what the hosts may have claimed; so ``free_memory``.
    """
    richness = build.richness[hosts]
    vcpus = free_vcpus - free_memory * richness / _LEAST
    memory = free_memory - free_vcpus * _MOST / richness
    stranded: Scores = np.maximum(vcpus, 0) + np.maximum(memory, 0)
    return stranded


def _lost_room(
    build: _Build, request: PlacementRequest, free_vcpus: Scores, free_memory: Scores, hosts: Hosts
) -> Scores:
    """By how much the largest workload that a host takes gets smaller, in mean hosts.

    One of the cluster's own shape: it takes as much memory for each vCPU as the hosts have
    together, so the resource that is scarcer on a host tells how large it may be.

    :param free_vcpus: as shares, once the request is there; so ``free_memory``.
    """
    vcpus, memory = free_vcpus * build.vcpus[hosts], free_memory * build.memory[hosts]
    before = np.minimum(
        vcpus + request.vcpus / build.mean_vcpus, memory + request.memory / build.mean_memory
    )
    lost: Scores = before - np.minimum(vcpus, memory)
    return lost


def _mine(fleet: Fleet, cluster_id: str) -> Mask:
    return fleet.where(("cluster", cluster_id), lambda host: host.cluster_id == cluster_id)


def _sum(fleet: Fleet, resource: Resource, hosts: Mask) -> float:
    return float(fleet.limits.of(resource)[hosts].sum(dtype=float))


def _inverse(fleet: Fleet, resource: Resource) -> Scores:
    """1 ÷ limit; 0 for hosts that have none of the resource and never fit."""

    def invert() -> Scores:
        limit = fleet.limits.of(resource).astype(float)
        inverse: Scores = np.divide(1.0, limit, out=np.zeros_like(limit), where=limit > 0)
        return inverse

    return fleet.remember(("inverse", resource), invert)
