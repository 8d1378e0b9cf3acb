"""The hosts as a process last saw them: placing reads anew only those that have changed.

A host's version changes with everything that people, agents and claims change of it and that
placement looks at (``virtmgr/store/versions.py``). So the versions of all hosts, one small query,
tell which views are old. Views are taken in only when the unit that read them is committed: no
unit's own changes that were rolled back stay here.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from virtmgr.domain.scheduling import Amounts, ClusterView, Fleet, HostView

_MOST_CHANGED = 0.5  # of the hosts; beyond that all of them are put together anew
_VCPU_DIGITS = 3  # as the inventory keeps them


class KnownHosts:
    """Safe for threads. A fleet of it has nothing that is placed; see ``Fleet.beside``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fleet = Fleet((), ())

    def older_than(self, versions: Mapping[str, int]) -> tuple[Fleet, Collection[str]]:
        """What is known, and the ids of hosts that are not known as they are now."""
        fleet = self._fleet
        known = fleet.versions
        return fleet, [id for id, version in versions.items() if known.get(id) != version]

    def keep(self, fleet: Fleet) -> None:
        """Take over what a committed unit has read."""
        with self._lock:
            self._fleet = fleet

    def claimed(self, claims: Mapping[str, Amounts], versions: Mapping[str, int]) -> None:
        """Take over what a committed unit has claimed of hosts that were at these versions."""
        with self._lock:
            fleet = self._fleet
            views = (fleet.host(id) for id in claims)
            changed = [
                _with_claim(view, claims[view.id])
                for view in views
                if view is not None and view.version == versions[view.id]
            ]
            self._fleet = fleet.with_hosts(changed)


def brought_up_to_date(
    fleet: Fleet,
    clusters: Collection[ClusterView],
    present: Collection[str],
    changed: Sequence[HostView],
) -> Fleet:
    """``fleet`` with its hosts as they are now.

    :param present: ids of all hosts that there are.
    :param changed: those of them that are not in ``fleet`` as they are now.
    """
    same = len(present) == len(fleet) and all(view.id in fleet.index for view in changed)
    same = same and {cluster.id: cluster for cluster in clusters} == dict(fleet.clusters)
    if same and len(changed) <= _MOST_CHANGED * len(fleet):
        return fleet.with_hosts(changed) if changed else fleet
    views = {view.id: view for view in fleet.hosts}
    views.update((view.id, view) for view in changed)
    return Fleet(clusters, _those(views, present))


def _those(views: Mapping[str, HostView], present: Iterable[str]) -> Iterable[HostView]:
    return [views[id] for id in present if id in views]


def _with_claim(view: HostView, claim: Amounts) -> HostView:
    return replace(
        view,
        version=view.version + 1,
        claimed_vcpus=round(view.claimed_vcpus + claim.vcpus, _VCPU_DIGITS),
        claimed_memory=view.claimed_memory + claim.memory,
        claimed_disk=view.claimed_disk + claim.disk,
    )
