"""The hosts as a process last saw them: placing reads anew only those that have changed.

A host's version changes with everything that people, agents and claims change of it and that
placement looks at (``virtmgr/store/versions.py``). So the versions of all hosts, one small query,
tell which views are old. Views are taken in only when the unit that read them is committed: no
unit's own changes that were rolled back stay here.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from virtmgr.domain.scheduling import Amounts, ClusterView, Fleet, HostView

_MOST_CHANGED = 0.5  # of the hosts; beyond that all of them are put together anew
_VCPU_DIGITS = 3  # as the inventory keeps them


@dataclass(frozen=True)
class Seen:
    """Hosts as they were seen. ``marks``: ``ID:VERSION`` of each."""

    fleet: Fleet
    marks: frozenset[str]


class KnownHosts:
    """Safe for threads. Its fleet has nothing that is placed; see ``Fleet.beside``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = Seen(Fleet((), ()), frozenset())

    @property
    def seen(self) -> Seen:
        """What is known; older than the inventory, as a rule."""
        return self._seen

    def keep(self, seen: Seen) -> None:
        """Take over what a committed unit has read."""
        with self._lock:
            self._seen = seen

    def claimed(self, claims: Mapping[str, Amounts], versions: Mapping[str, int]) -> None:
        """Take over what a committed unit has claimed of hosts that were at these versions. A view
        that is newer than its mark is read again."""
        with self._lock:
            fleet, marks = self._seen.fleet, set(self._seen.marks)
            changed = []
            for host_id, claim in claims.items():
                view = fleet.host(host_id)
                if view is None or view.version != versions[host_id]:
                    continue
                if _mark(view) in marks:
                    changed.append(_with_claim(view, claim))
                    marks.remove(_mark(view))
                    marks.add(_mark(changed[-1]))
            self._seen = Seen(fleet.with_hosts(changed), frozenset(marks))


def changed_ids(seen: Seen, marks: frozenset[str]) -> list[str]:
    """Ids of the hosts that are not known as they are now, by the ``marks`` of all."""
    return [mark.partition(":")[0] for mark in marks - seen.marks]


def brought_up_to_date(
    seen: Seen, clusters: Collection[ClusterView], marks: frozenset[str], changed: list[HostView]
) -> Seen:
    """What was seen, with the hosts as they are now.

    :param marks: of all hosts that there are.
    :param changed: those of them that were not seen as they are now.
    """
    fleet = seen.fleet
    same_clusters = {cluster.id: cluster for cluster in clusters} == dict(fleet.clusters)
    same_hosts = len(marks) == len(fleet) and all(view.id in fleet.index for view in changed)
    if same_clusters and same_hosts and not changed:
        return seen
    if same_clusters and same_hosts and len(changed) <= _MOST_CHANGED * len(fleet):
        now = fleet.with_hosts(changed)
    else:
        views = {view.id: view for view in fleet.hosts}
        views.update((view.id, view) for view in changed)
        present = (mark.partition(":")[0] for mark in marks)
        now = Fleet(clusters, [views[id] for id in present if id in views])
    # A view that is newer than its mark is read again the next time.
    complete = len(now) == len(marks)
    return Seen(now, marks if complete else frozenset(map(_mark, now.hosts)))


def mark(host_id: str, version: int) -> str:
    """A host at a version, as ``HostRepository.marks`` tells it."""
    return f"{host_id}:{version}"


def _mark(view: HostView) -> str:
    return mark(view.id, view.version)


def _with_claim(view: HostView, claim: Amounts) -> HostView:
    return replace(
        view,
        version=view.version + 1,
        claimed_vcpus=round(view.claimed_vcpus + claim.vcpus, _VCPU_DIGITS),
        claimed_memory=view.claimed_memory + claim.memory,
        claimed_disk=view.claimed_disk + claim.disk,
    )
