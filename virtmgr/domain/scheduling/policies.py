"""How the policies of clusters like hosts; see docs/operator-guide.md for when to choose which."""

from __future__ import annotations

import numpy as np

from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.scheduling.capacity import Resource
from virtmgr.domain.scheduling.fleet import Fleet, Hosts, Mask, Scores
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.tally import Tally

PHRASES = {
    SchedulingPolicy.SPREAD: "least claimed",
    SchedulingPolicy.PACK: "most claimed and least stranded",
    SchedulingPolicy.BALANCED: "most room in the scarcer of vCPUs and memory",
}
# The figures of ``pack`` are those that packed best in ``bench.placement_quality``.
_FULL, _STRANDED = 0.25, 1.5
_OPEN, _SMALL, _LARGEST = 0.15, 0.25, 2.0
_LEAST, _MOST = 1 / 3, 2.0
_TINY = 1e-9


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
    way round), and one that has nothing on it yet is left empty; of several of those, the largest
    is opened first, so that there will be few.

    :param vcpus: the shares that are claimed then; so ``memory``.
    """
    fleet, cluster_id = tally.fleet, request.cluster_id
    packed = _FULL * (vcpus + memory) / 2
    packed = packed - _STRANDED * _stranded(fleet, cluster_id, 1 - vcpus, 1 - memory, hosts)
    empty = (tally.claimed.vcpus[hosts] <= 0) & (tally.claimed.memory[hosts] <= 0)
    opening: Scores = _OPEN + _SMALL * (1 - _size(fleet, cluster_id)[hosts])
    return packed - np.where(empty, opening, 0.0)


def _stranded(
    fleet: Fleet, cluster_id: str, free_vcpus: Scores, free_memory: Scores, hosts: Hosts
) -> Scores:
    """The share of a host's vCPUs or memory that is free and of no use.

    Workloads are taken to ask for ``_LEAST`` to ``_MOST`` of the memory for each vCPU that the
    hosts of the cluster have together: flavours of 1 to 8 GiB a vCPU where hosts have 4. vCPUs
    that have less memory left beside them than the least, and memory that is more than the most,
    wait for something to leave.

    :param free_vcpus: as shares of what the hosts may have claimed; so ``free_memory``.
    """
    richness = _richness(fleet, cluster_id)[hosts]
    vcpus = free_vcpus - free_memory * richness / _LEAST
    memory = free_memory - free_vcpus * _MOST / richness
    stranded: Scores = np.maximum(vcpus, 0) + np.maximum(memory, 0)
    return stranded


def _richness(fleet: Fleet, cluster_id: str) -> Scores:
    """How much more memory for each vCPU hosts have than the cluster."""

    def relate() -> Scores:
        mine = _mine(fleet, cluster_id)
        usual = _sum(fleet, "memory", mine) / max(_sum(fleet, "vcpus", mine), _TINY)
        own = fleet.limits.memory * _inverse(fleet, "vcpus")
        related: Scores = np.maximum(own / max(usual, _TINY), _TINY)
        return related

    return fleet.remember(("richness", cluster_id), relate)


def _size(fleet: Fleet, cluster_id: str) -> Scores:
    """How large hosts are against the mean of the cluster's, up to ``_LARGEST``."""

    def relate() -> Scores:
        mine = _mine(fleet, cluster_id)
        number = np.count_nonzero(mine)
        vcpus = fleet.limits.vcpus * number / max(_sum(fleet, "vcpus", mine), _TINY)
        memory = fleet.limits.memory * number / max(_sum(fleet, "memory", mine), _TINY)
        size: Scores = np.minimum((vcpus + memory) / 2, _LARGEST)
        return size

    return fleet.remember(("size", cluster_id), relate)


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
