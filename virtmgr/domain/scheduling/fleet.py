"""The hosts as arrays, one element each in an order of their own, and what is placed on them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from operator import attrgetter
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
    before_claims,
    carries,
)

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
_MOST_REMEMBERED = 1000  # answers, each of an array; then it starts anew
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

    def replaced(self, rows: npt.NDArray[np.intp], by: Columns) -> Columns:
        """Columns with other amounts for these hosts."""
        made = self.copy()
        for name in RESOURCES:
            made.of(name)[rows] = by.of(name)
            _frozen(made.of(name))
        return made

    def row(self, host: int) -> Amounts:
        """The amounts of one host."""
        return Amounts(float(self.vcpus[host]), int(self.memory[host]), int(self.disk[host]))


class Fleet:
    """An immutable view of the hosts, at the time of a decision.

    Hosts stand in the order of a hash of their ids, whatever order they are given in: nothing
    depends on that, and neighbours have nothing in common, such as a rack. What can be derived is
    derived when first asked for, and remembered; fleets that are made of one another
    (``with_hosts``, ``beside``) share what is true of both.
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
        self.hosts: tuple[HostView, ...] = tuple(sorted(sorted(hosts, key=_id), key=_hash))
        self.index: Mapping[str, int] = {host.id: i for i, host in enumerate(self.hosts)}
        if len(self.index) < len(self.hosts):
            raise ValueError("a fleet has each host once; two with the same id were given")
        self.placed: tuple[PlacedWorkload, ...] = self._on_hosts(placed)
        self.limits = self._limits_of(self.hosts)
        self.claimed = claimed_by(self.hosts)
        self.ha = ha_of(self.hosts)
        self._at_hand: Mapping[str, frozenset[str]] = {}
        self._ports: Sequence[tuple[int, HostPort]] | None = None
        self._of_hosts: dict[Hashable, Any] = {}  # remembered: what their claims do not change
        self._of_placed: dict[Hashable, Any] = {}  # remembered: what is placed

    def host(self, host_id: str) -> HostView | None:
        """The view of one host; None: it is not here."""
        position = self.index.get(host_id)
        return None if position is None else self.hosts[position]

    def with_hosts(self, changed: Sequence[HostView]) -> Fleet:
        """The same with some of its hosts changed, and nothing placed.

        :raises KeyError: one is not among its hosts.
        """
        made = self.beside()
        rows = np.array([self.index[host.id] for host in changed], np.intp)
        hosts = list(self.hosts)
        for row, host in zip(rows, changed, strict=True):
            hosts[row] = host
        made.hosts = tuple(hosts)
        made.claimed = self.claimed.replaced(rows, claimed_by(changed))
        made.ha = self.ha.replaced(rows, ha_of(changed))
        if any(before_claims(self.hosts[row]) != before_claims(hosts[row]) for row in rows):
            made.limits = self.limits.replaced(rows, self._limits_of(changed))
            made._of_hosts = {}
        return made

    def beside(
        self,
        placed: Iterable[PlacedWorkload] = (),
        *,
        at_hand: Mapping[str, frozenset[str]] | None = None,
        ports: Mapping[str, Iterable[HostPort]] | None = None,
        ha: Mapping[str, Amounts] | None = None,
    ) -> Fleet:
        """The same hosts, and what one decision needs beside them.

        :param at_hand: by the id of an image the ids of the hosts that have it, instead of the
            views' ``image_ids``.
        :param ports: by the id of a host the ports that it publishes, instead of the views'.
        :param ha: by the id of a host its highly available claims, instead of the views'.
        """
        made = copy(self)
        made.placed, made._of_placed = self._on_hosts(placed), {}
        if len(self._of_hosts) > _MOST_REMEMBERED:
            made._of_hosts = {}
        made._at_hand = at_hand or {}
        made._ports = None
        if ports is not None:
            there = [(self.index[id], some) for id, some in ports.items() if id in self.index]
            made._ports = [(row, port) for row, some in there for port in some]
        if ha is not None:
            none = Amounts(0.0, 0, 0)
            amounts = [ha.get(host.id, none) for host in self.hosts]
            made.ha = _columns({name: [each.of(name) for each in amounts] for name in RESOURCES})
        return made

    def __len__(self) -> int:
        return len(self.hosts)

    def remember(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returned when it was first called for ``key``; not of what is claimed."""
        return _remember(self._of_hosts, key, make)

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

    def members(self, scope: str, host: int) -> npt.NDArray[np.intp]:
        """The hosts of one host's failure domain, itself among them."""

        def group() -> list[npt.NDArray[np.intp]]:
            order = np.argsort(self.domains(scope), kind="stable")
            return np.split(order, np.cumsum(np.bincount(self.domains(scope)))[:-1])

        groups = self.remember(("members", scope), group)
        return groups[int(self.domains(scope)[host])]

    def count_placed(self, project_id: str, labels: Mapping[str, str]) -> Counts:
        """How many workloads of a project that carry ``labels`` each host has."""

        def count() -> Counts:
            counts = np.zeros(len(self), np.int64)
            for workload in self.placed:
                if workload.project_id == project_id and carries(workload.labels, labels):
                    counts[self.index[workload.host_id]] += 1
            return _frozen(counts)

        key = (project_id, tuple(sorted(labels.items())))
        return _remember(self._of_placed, key, count)

    def publishing(self, protocol: str, port: int) -> Sequence[tuple[int, HostPort]]:
        """(host index, port) of every port of this number that is published."""

        def by_number() -> dict[tuple[str, int], list[tuple[int, HostPort]]]:
            found: dict[tuple[str, int], list[tuple[int, HostPort]]] = {}
            every = self._ports
            if every is None:
                every = [(row, port) for row, host in enumerate(self.hosts) for port in host.ports]
            for row, port in every:
                found.setdefault((port.protocol, port.port), []).append((row, port))
            return found

        return _remember(self._of_placed, "ports", by_number).get((protocol, port), ())

    def having_image(self, image_id: str) -> Mask:
        """The hosts that have an image at hand."""
        if image_id not in self._at_hand:
            return self.where(("image", image_id), lambda host: image_id in host.image_ids)
        ids = self._at_hand[image_id]
        return self.where(("at hand", ids), lambda host: host.id in ids)

    def _on_hosts(self, placed: Iterable[PlacedWorkload]) -> tuple[PlacedWorkload, ...]:
        return tuple(workload for workload in placed if workload.host_id in self.index)

    def _limits_of(self, hosts: Sequence[HostView]) -> Columns:
        found = []
        for host in hosts:
            cluster = self.clusters.get(host.cluster_id)
            if cluster is None:
                raise ValueError(f"host {host.name} is in cluster {host.cluster_id}, not given")
            found.append(limits(capacity_of(host), overcommit_of(cluster)))
        return _columns({name: [limit.of(name) for limit in found] for name in RESOURCES})


def claimed_by(hosts: Sequence[HostView]) -> Columns:
    """What is claimed of each host."""
    return _columns({name: [getattr(h, f"claimed_{name}") for h in hosts] for name in RESOURCES})


def ha_of(hosts: Sequence[HostView]) -> Columns:
    """What is claimed of each host by highly available workloads."""
    return _columns({name: [getattr(h, f"ha_{name}") for h in hosts] for name in RESOURCES})


def in_domains(counts: Counts, domains: Counts) -> Counts:
    """For each host, the sum of ``counts`` over all hosts of its domain."""
    sums = np.bincount(domains, weights=counts, minlength=1)
    return sums.astype(np.int64)[domains]


_id = attrgetter("id")


def _hash(host: HostView) -> int:
    return zlib.crc32(host.id.encode())


def _domain(host: HostView, scope: str) -> Hashable:
    if scope == "host" or scope not in host.labels:
        return ("host", host.id)
    if scope == "rack":
        return ("rack", host.labels.get("zone"), host.labels["rack"])
    return (scope, host.labels[scope])


def _remember(memory: dict[Hashable, Any], key: Hashable, make: Callable[[], T]) -> T:
    if key not in memory:
        memory[key] = make()
    return cast(T, memory[key])


def _columns(values: Mapping[Resource, list[float]]) -> Columns:
    return Columns(**{name: _frozen(np.array(values[name], _DTYPES[name])) for name in RESOURCES})


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array
