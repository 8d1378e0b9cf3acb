"""Which images a host keeps, and which go. Pure; ``agent/images.py`` carries it out.

An image that a workload of the host needs stays. Any other goes at once if it is not in the
inventory any more, if the pool is nearly full, or if somebody asked for it; else once no workload
has needed it for a while, as the next one is often made from the same image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from virtmgr.domain.image import ImageManifest
from virtmgr.domain.sync import ObservedPool

NEARLY_FULL = 0.9
"""The used share of a pool from which on it keeps no image that is not needed."""


@dataclass(frozen=True)
class KeptImage:
    """An image that a host has fetched, or began to fetch."""

    manifest: ImageManifest
    needed_at: datetime  # when a workload of the host last needed it
    whole: bool = False  # all of it is at hand


def to_remove(
    images: Mapping[str, KeptImage],
    *,
    needed: Collection[str],
    unknown: Collection[str],
    now: datetime,
    keep_for: timedelta,
    at_once: bool,
) -> frozenset[str]:
    """Ids of the images that go.

    :param needed: ids of those that workloads of the host need.
    :param unknown: ids of those that are not in the inventory any more.
    :param keep_for: how long an image stays that no workload needs, unless ``at_once``.
    """
    return frozenset(
        image_id
        for image_id, image in images.items()
        if image_id not in needed
        and (at_once or image_id in unknown or now - image.needed_at >= keep_for)
    )


def is_nearly_full(pools: Iterable[ObservedPool]) -> bool:
    """Whether any of the pools is."""
    return any(pool.used >= NEARLY_FULL * pool.capacity for pool in pools)
