"""Who chooses the host in ``bench.placement_quality``: virtmgr's scheduler, and published others.

The others are their scores only, put down here from what their projects have published; hosts that
have no room, are drained or have a member of the group are out for all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from bench.traces.model import Arrival, Machine
from virtmgr.domain.host import HostState, SchedulingPolicy
from virtmgr.domain.scheduling import (
    ClusterView,
    Fleet,
    HostView,
    PlacedWorkload,
    PlacementRequest,
    place,
)
from virtmgr.domain.workload import GIB, Affinity, Kind

Column = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shares:
    """Of every host, with the workload on it, what is claimed of vCPUs and of memory."""

    vcpus: Column
    memory: Column


class Policy(Protocol):
    """Told of everything that happens, and asked for hosts."""

    def choose(self, wanted: Arrival, near: Sequence[int], fitting: npt.NDArray[np.bool_]) -> int:
        """One of the ``fitting`` hosts, of which there are some; ``near`` have its group."""
        ...

    def claim(self, host: int, vcpus: float, memory: float) -> None:
        """So much more is claimed of a host, or less."""
        ...

    def drain(self, host: int, drained: bool) -> None:
        """A host takes nothing, or takes workloads again."""
        ...


@runtime_checkable
class Rebalancing(Protocol):
    """A policy that also moves what it has placed."""

    every: float
    """Seconds between its rounds."""

    def moves(self, there: Sequence[Mapping[str, Arrival]]) -> Sequence[tuple[str, int]]:
        """What goes where in a round, in this order: a workload's name, and its new host.

        :param there: what is on each host, by name.
        """
        ...


Score = Callable[[Shares], Column]


class Scored:
    """The best score wins; among equal ones the first host."""

    def __init__(self, machines: Sequence[Machine], score: Score) -> None:
        self._score = score
        self._limits = _columns(machines)
        self._claimed = np.zeros_like(self._limits)

    def choose(self, wanted: Arrival, _: Sequence[int], fitting: npt.NDArray[np.bool_]) -> int:
        asked = np.array([[wanted.vcpus], [wanted.memory]])
        scores = self._score(Shares(*((self._claimed + asked) / self._limits)))
        return int(np.where(fitting, scores, -np.inf).argmax())

    def claim(self, host: int, vcpus: float, memory: float) -> None:
        self._claimed[:, host] += (vcpus, memory)

    def drain(self, host: int, drained: bool) -> None:
        """It is not among the fitting."""


class Virtmgr:
    """The product's own ``place``, one request at a time."""

    def __init__(self, machines: Sequence[Machine], policy: SchedulingPolicy) -> None:
        cluster = ClusterView(id="c", name="c", policy=policy, overcommit_vcpus=1.0)
        views = [_view(number, machine) for number, machine in enumerate(machines)]
        self._fleet = Fleet([cluster], views)
        self.ids = [view.id for view in views]  # of machines, by their numbers
        self.numbers = {id: number for number, id in enumerate(self.ids)}
        self._changed: dict[int, HostView] = {}

    @property
    def fleet(self) -> Fleet:
        """The hosts as they are now."""
        if self._changed:
            self._fleet = self._fleet.with_hosts(list(self._changed.values()))
            self._changed = {}
        return self._fleet

    def choose(self, wanted: Arrival, near: Sequence[int], _: npt.NDArray[np.bool_]) -> int:
        fleet, request = self.fleet, request_for(wanted)
        placed = [
            PlacedWorkload(
                id=f"{wanted.group}-{host}",
                project_id=request.project_id,
                host_id=self.ids[host],
                labels=request.labels,
            )
            for host in near
        ]
        (decision,) = place(fleet.beside(placed), [request])
        if decision.host_id is None:
            raise RuntimeError(f"no host for {wanted.name}: {decision.explanation.summary}")
        return self.numbers[decision.host_id]

    def claim(self, host: int, vcpus: float, memory: float) -> None:
        view = self._view(host)
        self._changed[host] = replace(
            view,
            claimed_vcpus=view.claimed_vcpus + vcpus,
            claimed_memory=view.claimed_memory + round(memory * GIB),
        )

    def drain(self, host: int, drained: bool) -> None:
        state = HostState.DRAINING if drained else HostState.READY
        self._changed[host] = replace(self._view(host), state=state)

    def _view(self, host: int) -> HostView:
        return self._changed.get(host) or self._fleet.hosts[self._fleet.index[self.ids[host]]]


def first_fit(shares: Shares) -> Column:
    """The first host with room."""
    return np.zeros(len(shares.vcpus))


def best_fit(shares: Shares) -> Column:
    """The host that is fullest then, by its fuller resource; of several, the fuller on the whole.

    Panigrahy et al., "Heuristics for Vector Bin Packing", Microsoft Research, 2011, name the ways
    to measure a fullness of several dimensions.
    """
    fuller: Column = np.maximum(shares.vcpus, shares.memory)
    return fuller + 1e-6 * (shares.vcpus + shares.memory)


def nomad_binpack(shares: Shares) -> Column:
    """``ScoreFitBinPack`` of hashicorp/nomad, nomad/structs/funcs.go: 20 − 10^free − 10^free."""
    total = 10 ** (1 - shares.vcpus) + 10 ** (1 - shares.memory)
    return np.clip(20 - total, 0, 18)


def kubernetes_most_allocated(shares: Shares) -> Column:
    """``MostAllocated`` and ``NodeResourcesBalancedAllocation``, each of weight 1.

    kubernetes/kubernetes, pkg/scheduler/framework/plugins/noderesources: most_allocated.go (the
    mean of the requested shares × 100) and balanced_allocation.go (1 − their standard deviation,
    × 100, which for two resources is half their difference); whole numbers, as there.
    """
    return np.floor((np.floor(100 * shares.vcpus) + np.floor(100 * shares.memory)) / 2) + (
        _balanced(shares)
    )


def kubernetes_least_allocated(shares: Shares) -> Column:
    """``LeastAllocated``, the default of Kubernetes, and ``NodeResourcesBalancedAllocation``."""
    free = np.floor(100 * (1 - shares.vcpus)) + np.floor(100 * (1 - shares.memory))
    return np.floor(free / 2) + _balanced(shares)


def _balanced(shares: Shares) -> Column:
    balanced: Column = np.floor((1 - np.abs(shares.vcpus - shares.memory) / 2) * 100)
    return balanced


POLICIES: dict[str, Callable[[Sequence[Machine]], Policy]] = {
    "virtmgr pack": lambda machines: Virtmgr(machines, SchedulingPolicy.PACK),
    "virtmgr balanced": lambda machines: Virtmgr(machines, SchedulingPolicy.BALANCED),
    "first fit": lambda machines: Scored(machines, first_fit),
    "best fit": lambda machines: Scored(machines, best_fit),
    "Nomad binpack": lambda machines: Scored(machines, nomad_binpack),
    "Kubernetes most": lambda machines: Scored(machines, kubernetes_most_allocated),
    "Kubernetes least": lambda machines: Scored(machines, kubernetes_least_allocated),
}


def _columns(machines: Sequence[Machine]) -> Column:
    return np.array([[m.vcpus for m in machines], [m.memory for m in machines]])


def _view(number: int, machine: Machine) -> HostView:
    return HostView(
        id=f"{number:06}",
        name=machine.name,
        cluster_id="c",
        state=HostState.READY,
        labels={"zone": machine.zone, "rack": machine.rack},
        capacity_vcpus=machine.vcpus,
        capacity_memory=round(machine.memory * GIB),
        capacity_disk=0,
        kinds=frozenset({"vm"}),
    )


def request_for(one: Arrival, live_host_ids: frozenset[str] = frozenset()) -> PlacementRequest:
    """What a workload is placed by; its group's members require hosts of their own."""
    labels = {} if one.group is None else {"group": one.group}
    apart = Affinity(mode="apart", labels=labels, scope="host") if labels else None
    return PlacementRequest(
        id=one.name,
        name=one.name,
        project_id="p",
        cluster_id="c",
        kind=Kind.VM,
        vcpus=one.vcpus,
        memory=round(one.memory * GIB),
        disk=0,
        labels=labels,
        affinity=(apart,) if apart else (),
        live_host_ids=live_host_ids,
    )
