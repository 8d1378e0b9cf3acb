"""Quotas: what a request would take of its project's limits.

``QuotaRepository.charge`` enforces limits, in the transaction; ``check`` says the same beforehand,
for dry runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from virtmgr.domain.errors import QuotaExceeded
from virtmgr.domain.image import ImageType
from virtmgr.domain.project import Quota
from virtmgr.domain.values import format_bytes
from virtmgr.domain.workload import WorkloadSpec

RESOURCES = ("workloads", "vcpus", "memory", "disk", "volumes", "addresses")
"""What a quota limits; memory and disk are in bytes."""
_SLACK = 1e-6  # sums of fractions of vCPUs carry rounding errors


@dataclass(frozen=True)
class Excess:
    """A limit that a request would pass."""

    resource: str
    used: float
    asked: float
    limit: float

    def error(self, project: str) -> QuotaExceeded:
        """The refusal, in the words and with the numbers that clients rely on."""
        used, asked, limit = (
            written(self.resource, n) for n in (self.used, self.asked, self.limit)
        )
        return QuotaExceeded(
            f"the quota of project {project!r} is exceeded: "
            f"{self.resource}: {used} of {limit} used, {asked} asked",
            hint="delete what is not needed, or ask an operator to raise the quota",
            detail={
                "resource": self.resource,
                "used": self.used,
                "asked": self.asked,
                "limit": self.limit,
            },
        )


def amounts_of(
    spec: WorkloadSpec, image_type: ImageType | None, addresses: int
) -> dict[str, float]:
    """What one workload takes of its project's quota.

    :param spec: with ``init`` resolved, which the default size of the root disk hangs on. Its
        volumes count by themselves, when they are made.
    :param image_type: of its image, if it has one.
    :param addresses: how many addresses its NICs are given.
    """
    return {
        "workloads": 1,
        "vcpus": spec.resources.vcpus,
        "memory": spec.resources.memory,
        "disk": spec.root_disk_size(image_type),
        "addresses": addresses,
    }


def check(quota: Quota, amounts: Mapping[str, float]) -> Excess | None:
    """The first limit that adding ``amounts`` would pass, in the order of ``RESOURCES``.

    Giving back (a negative amount) and asking nothing always pass, over the limit or not.

    :raises KeyError: an amount of something that no quota limits.
    """
    unknown = amounts.keys() - set(RESOURCES)
    if unknown:
        raise KeyError(f"no quota limits {', '.join(sorted(unknown))}")
    for resource in RESOURCES:
        asked = amounts.get(resource, 0)
        limit = getattr(quota, f"limit_{resource}")
        used = getattr(quota, f"used_{resource}")
        slack = _SLACK if resource == "vcpus" else 0
        if asked > 0 and limit is not None and used + asked > limit + slack:
            return Excess(resource, used, asked, limit)
    return None


def written(resource: str, amount: float) -> str:
    """An amount of a resource, for people."""
    return format_bytes(int(amount)) if resource in ("memory", "disk") else f"{amount:.6g}"
