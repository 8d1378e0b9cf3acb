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
from virtmgr.domain.scheduling.fleet import Mask, Scores, in_domains
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
    """Minus the number of its like in the host's domain beyond the least crowded one that fits.

    Its like are the project's workloads of this batch and, if it has labels, those placed
    earlier with the same labels.
    """
    if request.spread_by is None:
        return
    counts = tally.made_together(request.project_id)
    if request.labels:
        counts = counts + tally.placed_before(request.project_id, request.labels)
    crowds = in_domains(counts, tally.fleet.domains(request.spread_by))
    yield Weight(
        "spread_by",
        (crowds[fitting].min() - crowds).astype(float),
        f"spread by {request.spread_by}",
    )


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
    SchedulingPolicy.PACK: "most claimed",
    SchedulingPolicy.BALANCED: "most room in the scarcer of vCPUs and memory",
}


def _policy(tally: Tally, request: PlacementRequest, _: Mask) -> Iterator[Weight]:
    """How the cluster's policy likes the host with the workload on it.

    With the claimed shares of vCPUs and of memory, ``spread`` is 1 − their mean, ``pack`` their
    mean, ``balanced`` 1 − the greater one: that is, 1 − their mean − half their difference, which
    likes hosts little used and hosts whose vCPUs and memory are used alike.
    """
    policy = tally.fleet.clusters[request.cluster_id].policy
    vcpus = (tally.claimed.vcpus + request.vcpus) * _inverse(tally, "vcpus")
    memory = (tally.claimed.memory + request.memory) * _inverse(tally, "memory")
    if policy is SchedulingPolicy.SPREAD:
        values = 1 - (vcpus + memory) / 2
    elif policy is SchedulingPolicy.PACK:
        values = (vcpus + memory) / 2
    else:
        values = 1 - np.maximum(vcpus, memory)
    yield Weight("policy", values, _POLICIES[policy])


def _image(tally: Tally, request: PlacementRequest, _: Mask) -> Iterator[Weight]:
    """1 where the image is there already."""
    image_id = request.image_id
    if image_id is not None:
        there = tally.fleet.where(("image", image_id), lambda host: image_id in host.image_ids)
        if there.any():
            yield Weight("image", there.astype(float), "image at hand")


def _inverse(tally: Tally, resource: str) -> Scores:
    """1 ÷ limit; 0 for hosts that have none of the resource and never fit."""

    def invert() -> Scores:
        limit = getattr(tally.fleet.limits, resource).astype(float)
        inverse: Scores = np.divide(1.0, limit, out=np.zeros_like(limit), where=limit > 0)
        return inverse

    return tally.fleet.remember(("inverse", resource), invert)


_WEIGHERS: tuple[Callable[[Tally, PlacementRequest, Mask], Iterator[Weight]], ...] = (
    _live,
    _spread_by,
    _affinity,
    _prefer,
    _policy,
    _image,
)
