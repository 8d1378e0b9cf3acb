"""What a batch has taken so far: the fleet's claims and counts, running along."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from virtmgr.domain.scheduling.capacity import RESOURCES
from virtmgr.domain.scheduling.fleet import Counts, Fleet, Mask
from virtmgr.domain.scheduling.model import HostPort, PlacedWorkload, PlacementRequest, carries
from virtmgr.domain.workload import Affinity


class Tally:
    """The fleet, and on top of it the requests of this batch that have got a host, or left one.

    :param moving: what gets a host here is placed already and moves; it was not asked for together.
    """

    def __init__(self, fleet: Fleet, *, moving: bool = False) -> None:
        self.fleet = fleet
        self._moving = moving
        self.claimed = fleet.claimed.copy()
        self.ha = fleet.ha.copy()
        self._batch: list[PlacedWorkload] = []
        self._batch_with_rules: list[PlacedWorkload] = []
        self._batch_ports: list[tuple[int, HostPort]] = []
        self._gone: dict[str, PlacedWorkload] = {}  # of the fleet's, those that have left
        self._gone_ports: set[tuple[int, HostPort]] = set()
        self._publishing: dict[HostPort, Mask] = {}  # kept up to date by ``take``, too
        self._counted: dict[_Selection, Counts] = {}  # kept up to date by ``take``

    def take(self, request: PlacementRequest, host: int) -> None:
        """Give ``request`` the host with this index; one that had left it before comes back."""
        self._claim(request, host, 1)
        workload = self._on(request, host)
        here_before = self._gone.get(workload.id)
        comes_back = here_before is not None and here_before.host_id == workload.host_id
        if comes_back:
            del self._gone[workload.id]
            self._gone_ports -= {(host, port) for port in request.ports}
        else:
            self._batch.append(workload)
            self._batch_ports += [(host, port) for port in request.ports]
            if workload.affinity:
                self._batch_with_rules.append(workload)
        for wanted, mask in self._publishing.items():
            mask[host] |= any(port.overlaps(wanted) for port in request.ports)
        for selection, counts in self._counted.items():
            if selection.labels is not None or not comes_back:
                counts[host] += selection.takes(workload)

    def leave(self, request: PlacementRequest, host: int) -> None:
        """Take away from the host with this index what was placed there: by the inventory, or by
        this batch. ``request`` is what it was, or would be, placed by."""
        self._claim(request, host, -1)
        workload = self._on(request, host)
        of_batch = any(one.id == workload.id for one in self._batch)
        if of_batch:
            self._batch = [one for one in self._batch if one.id != workload.id]
            self._batch_with_rules = [w for w in self._batch_with_rules if w.id != workload.id]
            for port in request.ports:
                self._batch_ports.remove((host, port))
        else:
            self._gone[workload.id] = workload
            self._gone_ports |= {(host, port) for port in request.ports}
        if request.ports:
            self._publishing.clear()
        for selection, counts in self._counted.items():
            if selection.labels is not None or of_batch:
                counts[host] -= selection.takes(workload)

    def _claim(self, request: PlacementRequest, host: int, sign: int) -> None:
        for resource in RESOURCES:
            self.claimed.of(resource)[host] += sign * getattr(request, resource)
            if request.ha:
                self.ha.of(resource)[host] += sign * getattr(request, resource)

    def _on(self, request: PlacementRequest, host: int) -> PlacedWorkload:
        return PlacedWorkload(
            id=request.id,
            project_id=request.project_id,
            host_id=self.fleet.hosts[host].id,
            labels=request.labels,
            affinity=request.affinity,
        )

    def matching(self, project_id: str, labels: Mapping[str, str]) -> Counts:
        """How many workloads of a project that carry ``labels`` each host has by now."""
        selection = _Selection(project_id, tuple(sorted(labels.items())))
        return self._count(selection, self.fleet.count_placed(project_id, labels))

    def made_together(self, project_id: str) -> Counts:
        """How many of this batch's workloads of a project each host has got."""
        if self._moving:
            return np.zeros(len(self.fleet), np.int64)
        return self._count(_Selection(project_id, None), np.zeros(len(self.fleet), np.int64))

    def placed_before(self, project_id: str, labels: Mapping[str, str]) -> Counts:
        """``Fleet.count_placed``; of those that move, where they are by now."""
        if self._moving:
            return self.matching(project_id, labels)
        return self.fleet.count_placed(project_id, labels)

    def publishing(self, wanted: HostPort) -> Mask:
        """The hosts that have published by now what keeps them from publishing ``wanted``."""
        if wanted not in self._publishing:
            mask = np.zeros(len(self.fleet), bool)
            before = self.fleet.publishing(wanted.protocol, wanted.port)
            left = [each for each in before if each not in self._gone_ports]
            for host, port in (*left, *self._batch_ports):
                mask[host] |= port.overlaps(wanted)
            self._publishing[wanted] = mask
        return self._publishing[wanted]

    def keeping_away(self, request: PlacementRequest) -> Iterator[tuple[int, Affinity]]:
        """(host index, rule) of every placed workload that requires ``request`` to stay apart."""
        for workload in self.placed_with_rules():
            if workload.project_id != request.project_id:
                continue
            for rule in workload.affinity:
                if rule.required and rule.mode == "apart" and carries(request.labels, rule.labels):
                    yield self.fleet.index[workload.host_id], rule

    def placed_with_rules(self) -> Iterator[PlacedWorkload]:
        """What is placed by now and is known to have affinity rules."""
        placed = self.fleet.remember(
            "placed with rules", lambda: tuple(w for w in self.fleet.placed if w.affinity)
        )
        yield from (workload for workload in placed if workload.id not in self._gone)
        yield from self._batch_with_rules

    def _count(self, selection: _Selection, before: Counts) -> Counts:
        """``before`` and the selected workloads of this batch, without those that have left."""
        if selection not in self._counted:
            counts = before + self._counts_of(w for w in self._batch if selection.takes(w))
            if selection.labels is not None:
                counts -= self._counts_of(w for w in self._gone.values() if selection.takes(w))
            self._counted[selection] = counts
        return self._counted[selection]

    def _counts_of(self, workloads: Iterable[PlacedWorkload]) -> Counts:
        counts = np.zeros(len(self.fleet), np.int64)
        for workload in workloads:
            counts[self.fleet.index[workload.host_id]] += 1
        return counts


@dataclass(frozen=True)
class _Selection:
    """Workloads of a project: those with all of ``labels``, or (None) those of the batch."""

    project_id: str
    labels: tuple[tuple[str, str], ...] | None

    def takes(self, workload: PlacedWorkload) -> bool:
        return workload.project_id == self.project_id and carries(
            workload.labels, dict(self.labels or ())
        )
