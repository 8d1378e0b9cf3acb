"""The hosts as arrays, one element each in the order of their ids, and what is placed on them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from virtmgr.domain.scheduling.capacity import (
    RESOURCES,
    Amounts,
    Resource,
    capacity_of,
    limits,
    overcommit_of,
)
from virtmgr.domain.scheduling.model import (
    ClusterView,
    HostPort,
    HostView,
    PlacedWorkload,
    carries,
)

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Hosts = int | slice | npt.NDArray[np.intp]  # by their index
_DTYPES: dict[Resource, type] = {"vcpus": np.float64, "memory": np.int64, "disk": np.int64}


@dataclass(frozen=True, eq=False)
class Columns:
    """An amount of each resource for every host."""

    vcpus: npt.NDArray[np.float64]
    memory: npt.NDArray[np.int64]
    disk: npt.NDArray[np.int64]

    def of(self, resource: Resource) -> npt.NDArray[Any]:
        """The column of one resource."""
        return cast("npt.NDArray[Any]", getattr(self, resource))

    def copy(self) -> Columns:
        """Columns of the same values that may be written to."""
        return Columns(self.vcpus.copy(), self.memory.copy(), self.disk.copy())

    def rows(self, hosts: npt.NDArray[np.intp]) -> Columns:
        """A copy of the columns for these hosts only."""
        return Columns(self.vcpus[hosts], self.memory[hosts], self.disk[hosts])

    def row(self, host: int) -> Amounts:
        """The amounts of one host."""
        return Amounts(float(self.vcpus[host]), int(self.memory[host]), int(self.disk[host]))


class Fleet:
    """An immutable view of the hosts; make a new one from the inventory for each decision.

    Hosts stand in the order of their ids, whatever order they are given in, so that nothing
    depends on the order. What can be derived is derived when first asked for, and remembered.
    Several threads may place on one fleet.
    """

    def __init__(
        self,
        clusters: Iterable[ClusterView],
        hosts: Iterable[HostView],
        placed: Iterable[PlacedWorkload] = (),
    ) -> None:
        """Make a view.

        :param placed: every workload that has a host, the requests' own left out; those on
            hosts that are not in ``hosts`` are ignored.
        :raises ValueError: two hosts have one id, or a host's cluster is not in ``clusters``.
        """
        self.clusters: Mapping[str, ClusterView] = {cluster.id: cluster for cluster in clusters}
        self.hosts: tuple[HostView, ...] = tuple(sorted(hosts, key=lambda host: host.id))
        self.index: Mapping[str, int] = {host.id: i for i, host in enumerate(self.hosts)}
        if len(self.index) < len(self.hosts):
            raise ValueError("a fleet has each host once; two with the same id were given")
        self.placed: tuple[PlacedWorkload, ...] = tuple(
            w for w in placed if w.host_id in self.index
        )
        self.limits = self._limits()
        self.claimed = _columns(
            {name: [getattr(host, f"claimed_{name}") for host in self.hosts] for name in RESOURCES}
        )
        self.ha = _columns(
            {name: [getattr(host, f"ha_{name}") for host in self.hosts] for name in RESOURCES}
        )
        self._remembered: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.hosts)

    def remember(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returned when it was first called for ``key``."""
        if key not in self._remembered:
            self._remembered[key] = make()
        return cast(T, self._remembered[key])

    def where(self, key: Hashable, test: Callable[[HostView], bool]) -> Mask:
        """The hosts that ``test`` holds for, remembered under ``key``."""
        return self.remember(key, lambda: _frozen(np.array([test(h) for h in self.hosts], bool)))

    def having_label(self, key: str, value: str) -> Mask:
        """The hosts that carry a label."""
        return self.where(("label", key, value), lambda host: host.label(key) == value)

    def domains(self, scope: str) -> Counts:
        """The number of each host's failure domain: hosts with one number are near each other.

        The labels ``zone`` and ``rack`` say where a host stands; racks of different zones are
        different. A host without the label is a domain of its own.
        """

        def number() -> Counts:
            numbers: dict[Hashable, int] = {}
            return _frozen(
                np.array(
                    [numbers.setdefault(_domain(h, scope), len(numbers)) for h in self.hosts],
                    np.int64,
                )
            )

        return self.remember(("domains", scope), number)

    def count_placed(self, project_id: str, labels: Mapping[str, str]) -> Counts:
        """How many workloads of a project that carry ``labels`` each host has."""

        def count() -> Counts:
            counts = np.zeros(len(self), np.int64)
            for workload in self.placed:
                if workload.project_id == project_id and carries(workload.labels, labels):
                    counts[self.index[workload.host_id]] += 1
            return _frozen(counts)

        return self.remember(("placed", project_id, tuple(sorted(labels.items()))), count)

    def publishing(self, protocol: str, port: int) -> Sequence[tuple[int, HostPort]]:
        """(host index, port) of every port of this number that is published."""

        def by_number() -> dict[tuple[str, int], list[tuple[int, HostPort]]]:
            found: dict[tuple[str, int], list[tuple[int, HostPort]]] = {}
            for index, host in enumerate(self.hosts):
                for each in host.ports:
                    found.setdefault((each.protocol, each.port), []).append((index, each))
            return found

        return self.remember("ports", by_number).get((protocol, port), ())

    def _limits(self) -> Columns:
        found = []
        for host in self.hosts:
            cluster = self.clusters.get(host.cluster_id)
            if cluster is None:
                raise ValueError(f"host {host.name} is in cluster {host.cluster_id}, not given")
            found.append(limits(capacity_of(host), overcommit_of(cluster)))
        return _columns({name: [limit.of(name) for limit in found] for name in RESOURCES})


def in_domains(counts: Counts, domains: Counts) -> Counts:
    """For each host, the sum of ``counts`` over all hosts of its domain."""
    sums = np.bincount(domains, weights=counts, minlength=1)
    return sums.astype(np.int64)[domains]


def _domain(host: HostView, scope: str) -> Hashable:
    if scope == "host" or scope not in host.labels:
        return ("host", host.id)
    if scope == "rack":
        return ("rack", host.labels.get("zone"), host.labels["rack"])
    return (scope, host.labels[scope])


def _columns(values: Mapping[Resource, list[float]]) -> Columns:
    return Columns(**{name: _frozen(np.array(values[name], _DTYPES[name])) for name in RESOURCES})


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array
