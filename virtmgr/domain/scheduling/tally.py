"""What a batch has taken so far: the fleet's claims and counts, running along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from virtmgr.domain.scheduling.capacity import RESOURCES
from virtmgr.domain.scheduling.fleet import Counts, Fleet, Mask
from virtmgr.domain.scheduling.model import HostPort, PlacedWorkload, PlacementRequest, carries
from virtmgr.domain.workload import Affinity


class Tally:
    """The fleet, and on top of it the requests of this batch that have got a host."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.claimed = fleet.claimed.copy()
        self.ha = fleet.ha.copy()
        self._batch: list[PlacedWorkload] = []
        self._batch_with_rules: list[PlacedWorkload] = []
        self._batch_ports: list[tuple[int, HostPort]] = []
        self._publishing: dict[HostPort, Mask] = {}  # kept up to date by ``take``, too
        self._counted: dict[_Selection, Counts] = {}  # kept up to date by ``take``

    def take(self, request: PlacementRequest, host: int) -> None:
        """Give ``request`` the host with this index."""
        for resource in RESOURCES:
            self.claimed.of(resource)[host] += getattr(request, resource)
            if request.ha:
                self.ha.of(resource)[host] += getattr(request, resource)
        workload = PlacedWorkload(
            id=request.id,
            project_id=request.project_id,
            host_id=self.fleet.hosts[host].id,
            labels=request.labels,
            affinity=request.affinity,
        )
        self._batch.append(workload)
        self._batch_ports += [(host, port) for port in request.ports]
        for wanted, mask in self._publishing.items():
            mask[host] |= any(port.overlaps(wanted) for port in request.ports)
        if workload.affinity:
            self._batch_with_rules.append(workload)
        for selection, counts in self._counted.items():
            counts[host] += selection.takes(workload)

    def matching(self, project_id: str, labels: Mapping[str, str]) -> Counts:
        """How many workloads of a project that carry ``labels`` each host has by now."""
        selection = _Selection(project_id, tuple(sorted(labels.items())))
        return self._count(selection, self.fleet.count_placed(project_id, labels))

    def made_together(self, project_id: str) -> Counts:
        """How many of this batch's workloads of a project each host has got."""
        return self._count(_Selection(project_id, None), np.zeros(len(self.fleet), np.int64))

    def publishing(self, wanted: HostPort) -> Mask:
        """The hosts that have published by now what keeps them from publishing ``wanted``."""
        if wanted not in self._publishing:
            mask = np.zeros(len(self.fleet), bool)
            before = self.fleet.publishing(wanted.protocol, wanted.port)
            for host, port in (*before, *self._batch_ports):
                mask[host] |= port.overlaps(wanted)
            self._publishing[wanted] = mask
        return self._publishing[wanted]

    def keeping_away(self, request: PlacementRequest) -> Iterator[tuple[int, Affinity]]:
        """(host index, rule) of every placed workload that requires ``request`` to stay apart."""
        for workload in self._placed_with_rules():
            if workload.project_id != request.project_id:
                continue
            for rule in workload.affinity:
                if rule.required and rule.mode == "apart" and carries(request.labels, rule.labels):
                    yield self.fleet.index[workload.host_id], rule

    def _placed_with_rules(self) -> Iterator[PlacedWorkload]:
        yield from self.fleet.remember(
            "placed with rules", lambda: tuple(w for w in self.fleet.placed if w.affinity)
        )
        yield from self._batch_with_rules

    def _count(self, selection: _Selection, before: Counts) -> Counts:
        """``before`` and the selected workloads of this batch."""
        if selection not in self._counted:
            counts = before.copy()
            for workload in self._batch:
                counts[self.fleet.index[workload.host_id]] += selection.takes(workload)
            self._counted[selection] = counts
        return self._counted[selection]


@dataclass(frozen=True)
class _Selection:
    """Workloads of a project: those with all of ``labels``, or (None) those of the batch."""

    project_id: str
    labels: tuple[tuple[str, str], ...] | None

    def takes(self, workload: PlacedWorkload) -> bool:
        return workload.project_id == self.project_id and carries(
            workload.labels, dict(self.labels or ())
        )
