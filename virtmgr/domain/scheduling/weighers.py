"""The weighers: which of the hosts that fit are better.

Each gives every host a value, mostly between 0 and 1, that counts with its factor. The factors
are apart far enough that ``spread_by``, which takes a whole point off for each workload of the
batch more than on the least crowded, outweighs all others together; and ``live`` that one: no place
is so much better that a guest should be stopped for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.scheduling.capacity import Resource
from virtmgr.domain.scheduling.fleet import Fleet, Hosts, Mask, Scores
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.rules import near
from virtmgr.domain.scheduling.tally import Tally

FACTORS = {
    "live": 10_000.0,
    "spread_by": 8.0,
    "affinity": 3.0,
    "prefer": 2.0,
    "policy": 1.0,
    "image": 0.5,
}


@dataclass(frozen=True, eq=False)
class Weight:
    """What one weigher says of every host."""

    name: str  # a key of FACTORS
    values: Scores
    phrase: str  # for the summary: "placed on h2: … of 3 that fit"


def weights_for(tally: Tally, request: PlacementRequest, fitting: Mask) -> tuple[Weight, ...]:
    """Every weigher that has something to say, the heaviest first."""
    return tuple(weight for weigher in _WEIGHERS for weight in weigher(tally, request, fitting))


def unmoved(tally: Tally, request: PlacementRequest) -> Scores:
    """What no batch changes of a score, up to a constant: the same for requests of one shape."""
    everywhere = np.ones(len(tally.fleet), bool)
    weighers = (_live, _prefer, _image)
    weights = [one for weigher in weighers for one in weigher(tally, request, everywhere)]
    return total((*weights, Weight("policy", np.zeros(len(tally.fleet)), "")))


def moved(tally: Tally, request: PlacementRequest, scores: Scores) -> Scores:
    """``scores`` and what a batch changes besides the policy's liking, up to a constant."""
    if request.spread_by is not None:
        scores = scores - FACTORS["spread_by"] * tally.crowds(request)
    for weight in _affinity(tally, request, np.ones(0, bool)):
        scores = scores + FACTORS[weight.name] * weight.values
    return scores


def total(weights: tuple[Weight, ...]) -> Scores:
    """The sum of the values, each times its factor."""
    weighted = [FACTORS[weight.name] * weight.values for weight in weights]
    return sum(weighted[1:], start=weighted[0])


def _live(tally: Tally, request: PlacementRequest, fitting: Mask) -> Iterator[Weight]:
    """1 where it can go to while it runs, unless that is so everywhere or nowhere."""
    wanted = request.live_host_ids
    if wanted:
        able = tally.fleet.where(("live", wanted), lambda host: host.id in wanted)
        if 0 < np.count_nonzero(able & fitting) < np.count_nonzero(fitting):
            yield Weight("live", able.astype(float), "able to take it while it runs")


def _spread_by(tally: Tally, request: PlacementRequest, fitting: Mask) -> Iterator[Weight]:
    """Minus the number of its like in the host's domain beyond the least crowded one that fits."""
    if request.spread_by is not None:
        crowds = tally.crowds(request)
        values = (crowds[fitting].min() - crowds).astype(float)
        yield Weight("spread_by", values, f"spread by {request.spread_by}")


def _affinity(tally: Tally, request: PlacementRequest, _: Mask) -> Iterator[Weight]:
    """The share of the rules that are not required which the host keeps."""
    kept = [
        near(tally, request, rule) == (rule.mode == "together")
        for rule in request.affinity
        if not rule.required
    ]
    if kept:
        yield Weight("affinity", np.mean(kept, axis=0), "affinity")


def _prefer(tally: Tally, request: PlacementRequest, _: Mask) -> Iterator[Weight]:
    """The share of the preferred labels that the host carries."""
    if request.prefer:
        carried = [tally.fleet.having_label(*pair) for pair in request.prefer.items()]
        yield Weight("prefer", np.mean(carried, axis=0), "preferred labels")


_POLICIES = {
    SchedulingPolicy.SPREAD: "least claimed",
    SchedulingPolicy.PACK: "most claimed and least stranded",
    SchedulingPolicy.BALANCED: "most room in the scarcer of vCPUs and memory",
}


def _policy(tally: Tally, request: PlacementRequest, _: Mask) -> Iterator[Weight]:
    policy = tally.fleet.clusters[request.cluster_id].policy
    yield Weight("policy", liked(tally, request), _POLICIES[policy])


def liked(tally: Tally, request: PlacementRequest, hosts: Hosts = slice(None), /) -> Scores:
    """How the cluster's policy likes hosts (all, or some) with the workload on them.

    With the claimed shares of vCPUs and of memory, ``spread`` is 1 − their mean, ``balanced`` 1 −
    the greater one: that is, 1 − their mean − half their difference, which likes hosts little used
    and hosts whose vCPUs and memory are used alike. ``pack`` is their mean less ``_STRANDED`` times
    the share that is stranded, by half: a full host is good, and one is bad that keeps memory which
    lacks the vCPUs to be used with, or the other way round.
    """
    fleet, policy = tally.fleet, tally.fleet.clusters[request.cluster_id].policy
    vcpus = (tally.claimed.vcpus[hosts] + request.vcpus) * _inverse(fleet, "vcpus")[hosts]
    memory = (tally.claimed.memory[hosts] + request.memory) * _inverse(fleet, "memory")[hosts]
    values: Scores
    if policy is SchedulingPolicy.SPREAD:
        values = 1 - (vcpus + memory) / 2
    elif policy is SchedulingPolicy.PACK:
        stranded = _stranded(fleet, request.cluster_id, 1 - vcpus, 1 - memory, hosts)
        values = ((vcpus + memory) / 2 - _STRANDED * stranded) / 2
    else:
        values = 1 - np.maximum(vcpus, memory)
    return values


_STRANDED = 3.0
_LEAST, _MOST = 1 / 3, 2.0


def _stranded(
    fleet: Fleet, cluster_id: str, free_vcpus: Scores, free_memory: Scores, hosts: Hosts
) -> Scores:
    """The share of a host's vCPUs or memory that is free and of no use.

    Workloads are taken to ask for ``_LEAST`` to ``_MOST`` of the memory for each vCPU that the
    hosts of the cluster have together (flavours of 1 to 8 GiB a vCPU where hosts have 4). vCPUs
    that have less memory left beside them than the least, and memory that is more than the most,
    wait for something to leave. The figures are those that packed best in
    ``bench.placement_quality``.

    :param free_vcpus: as shares of what the hosts may have claimed; so ``free_memory``.
    """

    def relate() -> Scores:
        mine = fleet.where(("cluster", cluster_id), lambda host: host.cluster_id == cluster_id)
        vcpus, memory = fleet.limits.vcpus, fleet.limits.memory
        usual = float(memory[mine].sum(dtype=float)) / max(float(vcpus[mine].sum()), _TINY)
        own = memory * _inverse(fleet, "vcpus")  # bytes a vCPU
        related: Scores = own / max(usual, _TINY)
        return related

    # How much more memory a vCPU the host has than the cluster.
    richness = np.maximum(fleet.remember(("richness", cluster_id), relate)[hosts], _TINY)
    vcpus = free_vcpus - free_memory * richness / _LEAST
    memory = free_memory - free_vcpus * _MOST / richness
    stranded: Scores = np.maximum(vcpus, 0) + np.maximum(memory, 0)
    return stranded


_TINY = 1e-9


def _image(tally: Tally, request: PlacementRequest, _: Mask) -> Iterator[Weight]:
    """1 where the image is there already."""
    image_id = request.image_id
    if image_id is not None:
        there = tally.fleet.having_image(image_id)
        if there.any():
            yield Weight("image", there.astype(float), "image at hand")


def _inverse(fleet: Fleet, resource: Resource) -> Scores:
    """1 ÷ limit; 0 for hosts that have none of the resource and never fit."""

    def invert() -> Scores:
        limit = fleet.limits.of(resource).astype(float)
        inverse: Scores = np.divide(1.0, limit, out=np.zeros_like(limit), where=limit > 0)
        return inverse

    return fleet.remember(("inverse", resource), invert)


_WEIGHERS: tuple[Callable[[Tally, PlacementRequest, Mask], Iterator[Weight]], ...] = (
    _live,
    _spread_by,
    _affinity,
    _prefer,
    _policy,
    _image,
)
