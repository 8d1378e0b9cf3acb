"""Knowing the hosts before anybody asks: who places first need not read all of them.

After a start, and once all agents have come back, that is every host of the fleet: seconds of work,
which would come at once and be done by each of those who place something then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from virtmgr.domain.scheduling import HostView
from virtmgr.ports.unit_of_work import UnitOfWorkFactory
from virtmgr.services.holding import keep_working
from virtmgr.services.known_hosts import KnownHosts, brought_up_to_date, changed_ids
from virtmgr.services.placement import cluster_views, host_view

_EVERY: Final = 5.0  # seconds between two looks
_AT_ONCE: Final = 100  # hosts, between which whoever asks something is served
_BREATH: Final = 0.01  # seconds


def look(units: UnitOfWorkFactory, known: KnownHosts) -> int:
    """Bring what a process knows of the hosts up to date; how many had changed."""
    with units(read_only=True) as uow:
        marks = uow.hosts.marks()  # first: what changes after it, the versions tell
        clusters = cluster_views(uow)
    changed = changed_ids(known.seen, marks)
    views: list[HostView] = []
    for start in range(0, len(changed), _AT_ONCE):
        views += _read(units, changed[start : start + _AT_ONCE])
        time.sleep(_BREATH)
    before = known.seen  # somebody who placed may know more by now
    now = brought_up_to_date(before, clusters, marks, views)
    if now is not before:
        known.keep(now)
    return len(changed)


def _read(units: UnitOfWorkFactory, ids: Sequence[str]) -> list[HostView]:
    with units(read_only=True) as uow:
        return [host_view(host) for host in uow.hosts.those(ids)]


def look_ahead(units: UnitOfWorkFactory, known: KnownHosts, stop: threading.Event) -> None:
    """Look every few seconds until ``stop`` is set."""

    def once() -> bool:
        look(units, known)
        return False  # what has changed meanwhile can wait

    keep_working(once, stop, _EVERY, name="looking_ahead")
