"""What the scheduler looks at: clusters, hosts, placed workloads and requests, all frozen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from operator import attrgetter

from virtmgr.domain.host import HostState, SchedulingPolicy
from virtmgr.domain.scheduling.capacity import RESOURCES, Amounts
from virtmgr.domain.workload import Affinity, Init, Kind


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """A cluster's policy, and how often each of its hosts' resources may be claimed."""

    id: str
    name: str
    policy: SchedulingPolicy = SchedulingPolicy.BALANCED
    overcommit_vcpus: float = 4.0
    overcommit_memory: float = 1.0
    overcommit_disk: float = 1.0
    reserve: int = 0


@dataclass(frozen=True, order=True)
class HostPort:
    """A port of a host that can lead to one workload only."""

    protocol: str  # tcp | udp
    port: int
    address: str  # of the host; 0.0.0.0 and :: are all of their family

    def overlaps(self, other: HostPort) -> bool:
        """Whether a host cannot publish both."""
        if (self.protocol, self.port, self._family) != (other.protocol, other.port, other._family):
            return False
        return self.address == other.address or bool({self.address, other.address} & _EVERY)

    @property
    def _family(self) -> int:
        return 6 if ":" in self.address else 4

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}/{self.protocol}"


_EVERY = frozenset({"0.0.0.0", "::"})


@dataclass(frozen=True, kw_only=True)
class HostView:
    """A host as it was read from the inventory. Memory and disk are in bytes."""

    id: str
    name: str
    cluster_id: str
    state: HostState
    labels: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""
    capacity_vcpus: float
    capacity_memory: int
    capacity_disk: int
    claimed_vcpus: float = 0.0
    claimed_memory: int = 0
    claimed_disk: int = 0
    version: int = 1
    kinds: frozenset[str] = frozenset()
    """What its healthy drivers run: of ``vm``, ``container:system``, ``container:app``."""
    image_ids: frozenset[str] = frozenset()
    """Of the images that are asked for, those that it has at hand."""
    bridges: frozenset[str] = frozenset()
    """Bridges of its own that networks of type ``bridge`` may join."""
    overlay_mtu: int = 0
    """The largest packet of an overlay that its tunnel carries, in bytes; 0: it has no tunnel."""
    vlans: bool = False
    """Whether it makes VLANs on its interfaces."""
    no_tunnel: str = ""
    """Why it has none, for people."""
    takes_moved: bool = False
    """Whether its agent can take up workloads of other hosts."""
    ports: frozenset[HostPort] = frozenset()
    """Those that its workloads publish, running or not; needed where some are asked for."""
    ha_vcpus: float = 0.0
    """Of what is claimed, what is highly available; needed where there is a reserve."""
    ha_memory: int = 0
    ha_disk: int = 0

    def label(self, key: str) -> str | None:
        """The value of a label; ``arch`` stands for the architecture."""
        return self.architecture if key == "arch" else self.labels.get(key)


@dataclass(frozen=True, kw_only=True)
class PlacedWorkload:
    """A workload that has a host, for affinity.

    ``affinity`` may be left out; with it, its required ``apart`` rules keep newcomers away too.
    """

    id: str
    project_id: str
    host_id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    affinity: tuple[Affinity, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlacementRequest:
    """One workload that needs a host, every reference and default resolved.

    :raises ValueError: a container whose ``init`` is not known yet.
    """

    id: str
    name: str
    project_id: str
    cluster_id: str
    kind: Kind
    init: Init | None = None
    vcpus: float
    memory: int
    disk: int
    labels: Mapping[str, str] = field(default_factory=dict)
    architecture: str | None = None
    require: Mapping[str, str] = field(default_factory=dict)
    prefer: Mapping[str, str] = field(default_factory=dict)
    host_id: str | None = None
    spread_by: str | None = None
    """``host``, ``rack`` or ``zone``."""
    affinity: tuple[Affinity, ...] = ()
    image_id: str | None = None
    bridges: frozenset[str] = frozenset()
    """Host bridges that its networks need."""
    overlay_mtu: int = 0
    """The largest packet of its overlay networks, in bytes; 0: it is on none."""
    vlans: bool = False
    """Whether it is on networks of type ``vlan``."""
    volume_host_ids: frozenset[str] = frozenset()
    """Hosts that its volumes are on already."""
    ports: frozenset[HostPort] = frozenset()
    """Ports of its host that it publishes."""
    live_host_ids: frozenset[str] = frozenset()
    """Hosts that it could go to while it runs, as far as the inventory can tell."""
    avoid: frozenset[str] = frozenset()
    """Hosts that still have something of it, and are to remove it first."""
    ha: bool = False
    """It is highly available."""
    from_reserve: bool = False
    """It may take what is kept for failures: it is what that is kept for, or takes no more room."""

    def __post_init__(self) -> None:
        if self.kind == Kind.CONTAINER and self.init is None:
            raise ValueError(f"placing {self.name!r}: the container's init is not resolved yet")

    @property
    def asked(self) -> Amounts:
        """What it will claim."""
        return Amounts(self.vcpus, self.memory, self.disk)

    @cached_property
    def shape(self) -> Hashable:
        """All that it asks; requests that differ only in id and name have the same."""
        return (
            self.project_id,
            self.cluster_id,
            self.runs_as,
            self.vcpus,
            self.memory,
            self.disk,
            _pairs(self.labels),
            self.architecture,
            _pairs(self.require),
            _pairs(self.prefer),
            self.host_id,
            self.spread_by,
            tuple((a.mode, _pairs(a.labels), a.scope, a.required) for a in self.affinity),
            self.image_id,
            self.bridges,
            self.overlay_mtu,
            self.vlans,
            self.volume_host_ids,
            self.ports,
            self.live_host_ids,
            self.avoid,
            self.ha,
            self.from_reserve,
        )

    def renamed(self, id: str, name: str) -> PlacementRequest:
        """The same of another workload. It is checked already, and has the same shape."""
        made = object.__new__(PlacementRequest)
        vars(made).update(vars(self), id=id, name=name, shape=self.shape)
        return made

    @property
    def runs_as(self) -> str:
        """What a host's drivers must run, in the words of ``HostView.kinds``."""
        return str(self.kind) if self.init is None else f"{self.kind}:{self.init}"


_CLAIMS = frozenset(
    ("version", *(f"{kind}_{name}" for kind in ("claimed", "ha") for name in RESOURCES))
)
before_claims = attrgetter(*(each.name for each in fields(HostView) if each.name not in _CLAIMS))
"""All of a host that no claim changes."""


def _pairs(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items())) if labels else ()


def carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether ``labels`` has every pair of ``wanted``."""
    return all(labels.get(key) == value for key, value in wanted.items())


def write_labels(labels: Mapping[str, str]) -> str:
    """``labels`` for people: ``tier=web, zone=a``."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
