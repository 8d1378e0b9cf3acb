"""The weighers: which of the hosts that fit are better.

Each gives every host a value, mostly between 0 and 1, that counts with its factor. The factors
are apart far enough that ``spread_by``, which takes a whole point off for each workload of the
batch more than on the least crowded, outweighs all others together; and ``live`` that one: no place
is so much better that a guest should be stopped for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from virtmgr.domain.scheduling.fleet import Mask, Scores
from virtmgr.domain.scheduling.model import PlacementRequest
from virtmgr.domain.scheduling.policies import PHRASES, liked
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
NEVER = -np.inf  # the score of a host that does not fit
EQUAL = 1e-9  # scores no farther apart than this are the same


@dataclass(frozen=True, eq=False)
class Weight:
    """What one weigher says of every host."""

    name: str  # a key of FACTORS
    values: Scores
    phrase: str  # for the summary: "placed on h2: … of 3 that fit"


@dataclass(frozen=True, eq=False)
class Ranked:
    """What the weighers say of the hosts, as long as nothing is taken."""

    weights: tuple[Weight, ...]
    scores: Scores  # NEVER where it does not fit
    equals: Mask  # hosts with the best score


def best_of(scores: Scores) -> Mask:
    """The hosts with the best score, if one fits."""
    best = scores.max(initial=NEVER)
    return scores >= best - EQUAL if best > NEVER else np.zeros(scores.size, bool)


def weights_for(
    tally: Tally, request: PlacementRequest, fitting: Mask, likes: Scores | None = None
) -> tuple[Weight, ...]:
    """Every weigher that has something to say, the heaviest first.

    :param likes: how the cluster's policy likes the hosts, where that is known.
    """
    return (
        *_live(tally, request, fitting),
        *_spread_by(tally, request, fitting),
        *_affinity(tally, request, fitting),
        *_prefer(tally, request, fitting),
        _policy(tally, request, liked(tally, request) if likes is None else likes),
        *_image(tally, request, fitting),
    )


def unmoved(tally: Tally, request: PlacementRequest) -> Scores:
    """What no batch changes of a score, up to a constant: the same for requests of one shape."""
    everywhere = np.ones(len(tally.fleet), bool)
    weighers = (_live, _prefer, _image)
    weights = [one for weigher in weighers for one in weigher(tally, request, everywhere)]
    return total((*weights, Weight("policy", np.zeros(len(tally.fleet)), "")))


def moved(tally: Tally, request: PlacementRequest, scores: Scores) -> Scores:
    """A copy of ``scores`` with what a batch changes besides the policy's liking."""
    if request.spread_by is None:
        scores = scores.copy()
    else:
        scores = scores - FACTORS["spread_by"] * tally.crowds(request)
    for weight in _affinity(tally, request, np.ones(0, bool)):
        scores += FACTORS[weight.name] * weight.values
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
        values = crowds[fitting].min() - crowds
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


def _policy(tally: Tally, request: PlacementRequest, likes: Scores) -> Weight:
    return Weight("policy", likes, PHRASES[tally.fleet.clusters[request.cluster_id].policy])


def _image(tally: Tally, request: PlacementRequest, _: Mask) -> Iterator[Weight]:
    """1 where the image is there already."""
    image_id = request.image_id
    if image_id is not None:
        there = tally.fleet.having_image(image_id)
        if there.any():
            yield Weight("image", there.astype(float), "image at hand")
