"""What a batch has taken so far: the fleet's claims and counts, running along.

Whatever was asked once is kept up to date by ``take``, where only a host or its failure domain
changes: nothing is counted anew for each request of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import numpy as np

from virtmgr.domain.scheduling.fleet import Counts, Fleet, Hosts, Mask, Scores, in_domains
from virtmgr.domain.scheduling.model import HostPort, PlacedWorkload, PlacementRequest, carries
from virtmgr.domain.workload import Affinity


class Follower(Protocol):
    """What is kept up to date with a tally."""

    def look_at(self, host: int) -> None:
        """See what is claimed of a host now."""


F = TypeVar("F", bound=Follower)


class Tally:
    """The fleet, and on top of it the requests of this batch that have got a host, or left one.

    The arrays that it gives out are its own, and change with the next ``take``.

    :param moving: what gets a host here is placed already and moves; it was not asked for together.
    """

    def __init__(self, fleet: Fleet, *, moving: bool = False) -> None:
        self.fleet = fleet
        self._moving = moving
        self.claimed = fleet.claimed.copy()
        self.ha = fleet.ha.copy()
        self.taken: list[tuple[PlacementRequest, int]] = []
        self._publishing: dict[HostPort, Mask] = {}
        self._counted: dict[_Selection, Counts] = {}
        self._near: dict[tuple[_Selection, str], Mask] = {}
        self._crowds: dict[tuple[_Selection, _Selection | None, str], Scores] = {}
        self._kept_apart: dict[_Selection, Mask] = {}
        self._following: dict[Hashable, Follower] = {}
        self._gone: dict[str, tuple[PlacementRequest, int]] = {}  # placed before, and left
        self._has_rules = any(workload.affinity for workload in fleet.placed)

    def take(self, request: PlacementRequest, host: int) -> None:
        """Give ``request`` the host with this index; one that had left it before comes back."""
        self._claim(request, host, 1)
        if request.id in self._gone and self._gone[request.id][1] == host:
            del self._gone[request.id]
            self._forget()
            return
        self.taken.append((request, host))
        for wanted, mask in self._publishing.items():
            mask[host] |= any(port.overlaps(wanted) for port in request.ports)
        for selection, counts in self._counted.items():
            counts[host] += selection.takes(request)
        for (selection, scope), near in self._near.items():
            if selection.takes(request):
                self._mark(near, host, scope)
        for (batch, _, scope), crowds in self._crowds.items():
            if batch.takes(request):
                crowds[self._domain(host, scope)] += 1
        if any(_requires_apart(rule) for rule in request.affinity):
            self._has_rules = True
            for kept, mask in self._kept_apart.items():
                self._keep_apart(mask, kept, request.project_id, request.affinity, host)

    def leave(self, request: PlacementRequest, host: int) -> None:
        """Take away from the host with this index what was placed there: by the inventory, or by
        this batch. ``request`` is what it was, or would be, placed by."""
        self._claim(request, host, -1)
        remaining = [each for each in self.taken if each[0].id != request.id]
        if len(remaining) == len(self.taken):
            self._gone[request.id] = (request, host)
        self.taken = remaining
        self._forget()

    def follow(self, key: Hashable, make: Callable[[], F]) -> F:
        """What ``make`` returned when it was first called for ``key``; from then on it is told of
        each host whose claims change."""
        if key not in self._following:
            self._following[key] = make()
        return cast(F, self._following[key])

    def _claim(self, request: PlacementRequest, host: int, sign: int) -> None:
        for columns in (self.claimed, self.ha) if request.ha else (self.claimed,):
            columns.vcpus[host] += sign * request.vcpus
            columns.memory[host] += sign * request.memory
            columns.disk[host] += sign * request.disk
        for follower in self._following.values():
            follower.look_at(host)

    def _forget(self) -> None:
        """Count anew what is asked for next."""
        self._publishing, self._counted, self._near = {}, {}, {}
        self._crowds, self._kept_apart = {}, {}
        self._has_rules = any(True for _ in self.with_rules())

    def matching(self, project_id: str, labels: Mapping[str, str]) -> Counts:
        """How many workloads of a project that carry ``labels`` each host has by now."""
        selection = _selection(project_id, labels)
        if selection not in self._counted:
            counts = self.fleet.count_placed(project_id, labels).copy()
            self._without_gone(counts, selection)
            self._counted[selection] = self._with_batch(counts, selection)
        return self._counted[selection]

    def near(self, project_id: str, labels: Mapping[str, str], scope: str) -> Mask:
        """The hosts that have such a workload in their failure domain of this scope by now."""
        key = (_selection(project_id, labels), scope)
        if key not in self._near:
            counts = self.matching(project_id, labels)
            self._near[key] = in_domains(counts, self.fleet.domains(scope)) > 0
        return self._near[key]

    def crowds(self, request: PlacementRequest) -> Scores:
        """How many of its like are in each host's domain of the scope that it is spread by.

        Its like are the project's workloads of this batch and, if it has labels, those placed
        earlier with the same labels. Of those that move, only labels tell who is alike.
        """
        scope = request.spread_by or "host"
        batch = _Selection(request.project_id, None)
        like = _selection(request.project_id, request.labels) if request.labels else None
        if self._moving:
            if like is None:
                return np.zeros(len(self.fleet))
            batch = like
        if (batch, like, scope) not in self._crowds:
            counts = np.zeros(len(self.fleet), np.int64)
            if like is not None:
                counts += self.fleet.count_placed(request.project_id, request.labels)
                self._without_gone(counts, like)
            counts = self._with_batch(counts, batch)
            crowds = in_domains(counts, self.fleet.domains(scope))
            self._crowds[batch, like, scope] = crowds.astype(float)
        return self._crowds[batch, like, scope]

    def publishing(self, wanted: HostPort) -> Mask:
        """The hosts that have published by now what keeps them from publishing ``wanted``."""
        if wanted not in self._publishing:
            mask = np.zeros(len(self.fleet), bool)
            gone = {(host, port) for one, host in self._gone.values() for port in one.ports}
            for host, port in self.fleet.publishing(wanted.protocol, wanted.port):
                mask[host] |= port.overlaps(wanted) and (host, port) not in gone
            for request, host in self.taken:
                mask[host] |= any(port.overlaps(wanted) for port in request.ports)
            self._publishing[wanted] = mask
        return self._publishing[wanted]

    def kept_apart(self, request: PlacementRequest) -> Mask | None:
        """The hosts near which a workload requires ``request`` to stay apart; None: none do."""
        if not self._has_rules:
            return None
        selection = _selection(request.project_id, request.labels)
        if selection not in self._kept_apart:
            mask = np.zeros(len(self.fleet), bool)
            for one in self.with_rules():
                host = self.fleet.index[one.host_id]
                self._keep_apart(mask, selection, one.project_id, one.affinity, host)
            self._kept_apart[selection] = mask
        mask = self._kept_apart[selection]
        return mask if mask.any() else None

    def with_rules(self) -> Iterator[PlacedWorkload]:
        """What is placed by now and is known to have affinity rules."""
        for workload in self.fleet.placed:
            if workload.affinity and workload.id not in self._gone:
                yield workload
        for request, host in self.taken:
            if request.affinity:
                yield PlacedWorkload(
                    id=request.id,
                    project_id=request.project_id,
                    host_id=self.fleet.hosts[host].id,
                    labels=request.labels,
                    affinity=request.affinity,
                )

    def _keep_apart(
        self,
        mask: Mask,
        kept: _Selection,
        project_id: str,
        affinity: tuple[Affinity, ...],
        host: int,
    ) -> None:
        """Add the hosts near ``host`` that one workload's rules keep the ``kept`` from."""
        if project_id == kept.project_id:
            for rule in affinity:
                if _requires_apart(rule) and carries(kept.as_labels(), rule.labels):
                    self._mark(mask, host, rule.scope)

    def _mark(self, mask: Mask, host: int, scope: str) -> None:
        """Add a host's failure domain to a mask."""
        if scope == "host":
            mask[host] = True
        else:
            domains = self.fleet.domains(scope)
            mask |= domains == domains[host]

    def _domain(self, host: int, scope: str) -> Hosts:
        return host if scope == "host" else self.fleet.members(scope, host)

    def _without_gone(self, counts: Counts, selection: _Selection) -> None:
        for request, host in self._gone.values():
            counts[host] -= selection.takes(request)

    def _with_batch(self, counts: Counts, selection: _Selection) -> Counts:
        for request, host in self.taken:
            counts[host] += selection.takes(request)
        return counts


@dataclass(frozen=True)
class _Selection:
    """Workloads of a project: those with all of ``labels``, or (None) every one."""

    project_id: str
    labels: tuple[tuple[str, str], ...] | None

    def takes(self, request: PlacementRequest) -> bool:
        if request.project_id != self.project_id:
            return False
        labels = request.labels
        return all(labels.get(key) == value for key, value in self.labels or ())

    def as_labels(self) -> dict[str, str]:
        return dict(self.labels or ())


def _selection(project_id: str, labels: Mapping[str, str]) -> _Selection:
    return _Selection(project_id, tuple(sorted(labels.items())))


def _requires_apart(rule: Affinity) -> bool:
    return rule.required and rule.mode == "apart"
