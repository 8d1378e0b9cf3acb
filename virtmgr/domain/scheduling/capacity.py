"""When an amount fits on a host: the one rule that the scheduler and the commit share.

``claimed + asked ≤ capacity × overcommit``, for each resource by itself. Memory and disk are whole
bytes and compared exactly. vCPUs may be fractions whose sums carry rounding errors, so they are
compared with a slack of a millionth of a vCPU; it is a slack of the total and does not add up.

The scheduler calls ``limits`` once for each host and then ``stays_within`` on whole columns;
``fits`` calls the same two on single numbers. That is why they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from virtmgr.domain.values import format_bytes

if TYPE_CHECKING:
    from virtmgr.domain.host import Cluster, Host
    from virtmgr.domain.scheduling.model import ClusterView, HostView

Resource = Literal["vcpus", "memory", "disk"]
RESOURCES: tuple[Resource, ...] = ("vcpus", "memory", "disk")
SLACK: dict[Resource, float] = {"vcpus": 1e-6, "memory": 0, "disk": 0}
_LARGEST = 2**62  # a limit never exceeds it, so that sums stay within 64 bits


@dataclass(frozen=True)
class Amounts:
    """vCPUs, and bytes of memory and disk."""

    vcpus: float
    memory: int
    disk: int

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(self.vcpus + other.vcpus, self.memory + other.memory, self.disk + other.disk)

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(self.vcpus - other.vcpus, self.memory - other.memory, self.disk - other.disk)

    def of(self, resource: Resource) -> float:
        """The amount of one resource."""
        return float(self.vcpus) if resource == "vcpus" else getattr(self, resource)


@dataclass(frozen=True)
class Overcommit:
    """How often each resource of a host may be claimed; a cluster's setting."""

    vcpus: float = 4.0
    memory: float = 1.0
    disk: float = 1.0


@dataclass(frozen=True)
class Shortfall:
    """A resource that a host has too little of."""

    resource: Resource
    free: float
    asked: float
    limit: float

    @property
    def code(self) -> str:
        """The stable code of the reason: ``lacks_memory``."""
        return f"lacks_{self.resource}"

    @property
    def message(self) -> str:
        """The reason for people, with the numbers."""
        free, asked, limit = (
            format_amount(self.resource, n) for n in (max(self.free, 0), self.asked, self.limit)
        )
        name = resource_name(self.resource)
        return f"{free} of {limit} {name} free to claim, {asked} asked"


def limits(capacity: Amounts, overcommit: Overcommit) -> Amounts:
    """The most that may be claimed: capacity × overcommit, bytes rounded down."""
    return Amounts(
        vcpus=capacity.vcpus * overcommit.vcpus,
        memory=_times(capacity.memory, overcommit.memory),
        disk=_times(capacity.disk, overcommit.disk),
    )


def stays_within(claimed: Any, asked: float, limit: Any, resource: Resource) -> Any:
    """Whether ``asked`` more stays within ``limit``: for numbers a bool, for columns a mask."""
    return claimed + asked <= limit + SLACK[resource]


def fits(
    capacity: Amounts, claimed: Amounts, overcommit: Overcommit, asked: Amounts
) -> tuple[Shortfall, ...]:
    """What a host lacks to take ``asked`` besides ``claimed``; empty if it fits."""
    limit = limits(capacity, overcommit)
    return tuple(
        shortfall(claimed, asked, limit, resource)
        for resource in RESOURCES
        if not stays_within(claimed.of(resource), asked.of(resource), limit.of(resource), resource)
    )


def shortfall(claimed: Amounts, asked: Amounts, limit: Amounts, resource: Resource) -> Shortfall:
    """The lack of one resource, in numbers."""
    return Shortfall(
        resource=resource,
        free=limit.of(resource) - claimed.of(resource),
        asked=asked.of(resource),
        limit=limit.of(resource),
    )


def shortfalls(
    host: Host | HostView, cluster: Cluster | ClusterView, asked: Amounts
) -> tuple[Shortfall, ...]:
    """``fits`` for a host of a cluster, as the commit and live resizes ask it."""
    return fits(capacity_of(host), claimed_of(host), overcommit_of(cluster), asked)


def capacity_of(host: Host | HostView) -> Amounts:
    """What the host has."""
    return Amounts(host.capacity_vcpus, host.capacity_memory, host.capacity_disk)


def claimed_of(host: Host | HostView) -> Amounts:
    """What its workloads have claimed."""
    return Amounts(host.claimed_vcpus, host.claimed_memory, host.claimed_disk)


def overcommit_of(cluster: Cluster | ClusterView) -> Overcommit:
    """How often its hosts' resources may be claimed."""
    return Overcommit(cluster.overcommit_vcpus, cluster.overcommit_memory, cluster.overcommit_disk)


def resource_name(resource: Resource) -> str:
    """The resource for people."""
    return {"vcpus": "vCPUs", "memory": "memory", "disk": "disk"}[resource]


def format_amount(resource: Resource, amount: float) -> str:
    """An amount for people: ``1.5GiB``, ``0.25``."""
    return f"{amount:.6g}" if resource == "vcpus" else format_bytes(int(amount))


def _times(count: int, ratio: float) -> int:
    """⌊count × ratio⌋, exact where a float product of large byte counts would round up."""
    numerator, denominator = float(ratio).as_integer_ratio()
    return min(count * numerator // denominator, _LARGEST)
