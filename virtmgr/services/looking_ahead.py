"""Knowing the hosts before anybody asks: who places first need not read all of them.

After a start, and once all agents have come back, that is every host of the fleet: seconds of work,
which would come at once and be done by each of those who place something then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

import structlog

from virtmgr.domain.scheduling import HostView
from virtmgr.ports.unit_of_work import ListQuery, UnitOfWorkFactory
from virtmgr.services.known_hosts import KnownHosts, brought_up_to_date, changed_ids
from virtmgr.services.placement import cluster_view, host_view

_EVERY: Final = 5.0  # seconds between two looks
_AT_ONCE: Final = 100  # hosts, between which whoever asks something is served
_BREATH: Final = 0.01  # seconds

_log = structlog.get_logger()


def look(units: UnitOfWorkFactory, known: KnownHosts) -> int:
    """Bring what a process knows of the hosts up to date; how many had changed."""
    with units(read_only=True) as uow:
        marks = uow.hosts.marks()  # first: what changes after it, the versions tell
        clusters = [cluster_view(one) for one in uow.clusters.list(ListQuery(limit=500)).items]
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


class LookingAhead:
    """Looks every few seconds, in whichever thread ``run`` is called, until ``stop``."""

    def __init__(self, units: UnitOfWorkFactory, known: KnownHosts) -> None:
        self._units, self._known = units, known
        self._ended = threading.Event()

    def stop(self) -> None:
        """Look no more; one look may still be under way."""
        self._ended.set()

    def run(self) -> None:
        """Look until ``stop``."""
        while not self._ended.is_set():
            try:
                look(self._units, self._known)
            except Exception as error:  # noqa: BLE001  tried again; who places reads by itself
                _log.warning("looking_ahead.failed", error=str(error))
            self._ended.wait(_EVERY)
