"""Heartbeats: a host that has nothing to say renews its lease while it waits to be woken.

Most of what a large fleet asks is this. So what comes within a moment is one transaction (group
commit): whoever comes first gathers the others, and whoever comes next the next ones. A host with
highly available workloads keeps its short lease by syncs (``services/sync.py``), which are answered
at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event, Lock
from typing import Final

import structlog

from virtmgr.domain.errors import Unavailable
from virtmgr.domain.leases import USUAL, gather_seconds, routine_pause
from virtmgr.ports.unit_of_work import Heartbeat
from virtmgr.services import enrolment
from virtmgr.services.container import Services

_MOST: Final = 500  # in one transaction
_COUNT: Final = 10.0  # seconds between counts of the fleet


_log = structlog.get_logger()


@dataclass(frozen=True)
class Beat:
    """A heartbeat that counted: the lease is renewed from then on.

    ``revision`` is the host's; ``pause`` how many seconds may pass between two of its syncs of
    which nothing is news.
    """

    revision: int
    pause: float


@dataclass
class _Waiting:
    """``told``: it is renewed, or it is to gather the others (``leads``)."""

    heartbeat: Heartbeat
    told: Event = field(default_factory=Event)
    leads: bool = False
    revision: int | None = None
    error: Exception | None = None


class Heartbeats:
    """Those that come to one process. Safe in threads and greenlets."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = Lock()
        self._waiting: list[_Waiting] = []
        self._gathering = False
        self._gather_seconds = gather_seconds(0, 1.0)
        self._taken = -_COUNT  # when the last batch was
        self._pause = routine_pause(0)
        self._counted = -_COUNT

    def beat(self, heartbeat: Heartbeat) -> Beat | None:
        """Renew a host's lease; None: it is to sync, for there is more to it than that.

        :raises Unavailable: the database cannot be reached.
        """
        mine = _Waiting(heartbeat)
        with self._lock:
            self._waiting.append(mine)
            mine.leads, self._gathering = not self._gathering, True
        if not mine.leads:
            mine.told.wait()
        if mine.leads:
            self._gather()
        if mine.error is not None:
            raise Unavailable(
                f"renew the lease of host {heartbeat.host_id}: {mine.error}",
                hint="it is tried again",
            ) from mine.error
        if mine.revision is None:
            return self._renewed_otherwise(heartbeat)
        return Beat(mine.revision, self._pause)

    def _renewed_otherwise(self, heartbeat: Heartbeat) -> Beat | None:
        """The same where a sync of the host had it locked, and renews the lease as well.

        :raises Unauthenticated: the certificate is not the host's (any more).
        """
        host = enrolment.authenticate(self._services, *heartbeat)
        speaks = host.state is host.scheduling_state and host.lease_seconds == USUAL.total_seconds()
        if not speaks or host.lease_expires_at is None:
            return None
        left = host.lease_expires_at - self._services.clock.now()
        return Beat(host.revision, self._pause) if left > USUAL / 2 else None

    def _gather(self) -> None:
        try:
            time.sleep(self._gather_seconds)
            more = True
            while more:
                with self._lock:
                    batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                    more = bool(self._waiting)
                self._decide_how_long(len(batch))
                self._renew(batch)
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        """Let one of those that have come meanwhile gather them."""
        with self._lock:
            following = next((one for one in self._waiting if not one.leads), None)
            self._gathering = following is not None
            if following is not None:
                following.leads = True
                following.told.set()

    def _decide_how_long(self, came: int) -> None:
        clock = time.monotonic()
        self._gather_seconds = gather_seconds(came, clock - self._taken)
        self._taken = clock

    def _renew(self, batch: Sequence[_Waiting]) -> None:
        try:
            now = self._services.clock.now()
            revisions = self._written(batch, now)
            for one in batch:
                one.revision = revisions.get(one.heartbeat.host_id)
        except Exception as error:  # noqa: BLE001  whoever waits is to hear of it, whatever it is
            _log.warning("heartbeats.failed", hosts=len(batch), error=str(error))
            for one in batch:
                one.error = error
        finally:
            for one in batch:
                one.told.set()

    def _written(self, batch: Sequence[_Waiting], now: datetime) -> dict[str, int]:
        clock = time.monotonic()
        with self._services.units() as uow:
            revisions = uow.hosts.renew_all([one.heartbeat for one in batch], now)
            if clock - self._counted >= _COUNT:
                self._counted = clock
                self._pause = routine_pause(uow.hosts.count_synced())
            uow.commit()
        return dict(revisions)
