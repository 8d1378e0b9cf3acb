"""Carries migrations forward while they are the source's: lets it stop, copies, hands over.

A migration is held by a lease that a heartbeat renews. A worker that dies lets it run out; the
next one goes on with the phase that the row is in. A worker that was only slow and wakes up again
finds at each step that the row is not its own any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final

import structlog

from virtmgr.domain.errors import Unavailable, VirtmgrError
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.migration import WORK, Migration, MigrationMode, Phase, is_at_rest
from virtmgr.domain.workload import Workload
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.carriage import Cancelled, Copied, carry
from virtmgr.services.container import Services
from virtmgr.services.holding import DATABASE_AWAY, heartbeat, keep_working, new_holder
from virtmgr.services.live_steps import begin_preparing, is_busy
from virtmgr.services.migration_steps import (
    BY_REQUEST,
    begin_stopping,
    give_up,
    hand_over,
    problem_of,
    rested,
)
from virtmgr.services.patience import PAUSES, patiently

_LEASE: Final = timedelta(seconds=15)
_TURN: Final = timedelta(seconds=2)  # after which one looks again whether others have gone
_IDLE: Final = 1.0
_LOOK: Final = 0.2  # seconds between looks whether a workload rests
_GRACE: Final = 90.0  # seconds beyond its own stop_timeout that a workload has to come to rest
_PREPARATION: Final = 1800.0  # seconds that a target has for it; it may have to fetch an image
_PAUSES: Final = PAUSES

log = structlog.get_logger(__name__)


class Lost(Exception):
    """The migration is another worker's now, or nobody's any more."""


@dataclass
class _Held:
    """A migration in hand. ``stop`` is set when it is to be let go of, whatever the reason."""

    id: str
    copied: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


class MigrationWorker:
    """Carries one migration at a time; start several for more at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._owner = new_holder()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; what is under way then is left to the next worker."""
        keep_working(partial(self.run_once, stop), stop, _IDLE, name="migration")

    def run_once(self, stop: threading.Event | None = None) -> bool:
        """Take one migration and carry it to its new host; False if there is none."""
        now = self._services.clock.now()
        with self._services.units() as uow:
            taken = uow.migrations.take(self._owner, now + _LEASE, now)
            uow.commit()
        if taken is None:
            return False
        held = _Held(taken.id, taken.copied)
        beat = partial(self._beat, held, stop or threading.Event())
        with heartbeat(beat, name="migration"):
            try:
                self._carry_on(held)
            except Lost:
                log.info("migration_let_go", migration=held.id)
        return True

    def _carry_on(self, held: _Held) -> None:
        """Step after step until it is the target's, or has failed.

        :raises Lost: it is not ours any more.
        """
        steps = {
            Phase.PLANNED: self._stop_it,
            Phase.STOPPING: self._wait_for_rest,
            Phase.COPYING: self._copy,
            Phase.PREPARING: self._wait_for_target,
        }
        while True:
            with self._services.units(read_only=True) as uow:
                migration = uow.migrations.get(held.id)
            if migration is None or migration.phase not in WORK:
                return
            try:
                self._check(held)
                steps[migration.phase](held, migration)
            except Cancelled:
                self._check(held)
            except VirtmgrError as error:
                if error.code in DATABASE_AWAY:
                    raise
                log.warning("migration_failed", migration=held.id, error=error.message)
                self._give_up(held, problem_of(error))

    def _stop_it(self, held: _Held, _migration: Migration) -> None:
        with self._own(held) as (uow, mine, workload):
            now, live = self._services.clock.now(), mine.mode is MigrationMode.LIVE
            waits = live and is_busy(uow, mine)
            if waits:
                mine.lease_expires_at = now + _TURN
            else:
                begin = begin_preparing if live else begin_stopping
                begin(self._services, uow, mine, workload, now)
        if waits:
            raise Lost

    def _wait_for_target(self, held: _Held, migration: Migration) -> None:
        """What the target reports ends the phase (``sync``); here it ends that nothing comes."""
        begun = time.monotonic()
        while True:
            self._check(held)
            with self._services.units(read_only=True) as uow:
                now = uow.migrations.get(held.id)
                target = uow.hosts.get(migration.target_host_id or "")
            if now is None or now.phase is not Phase.PREPARING:
                raise Lost
            silent = target is None or target.state in SILENT
            if silent or time.monotonic() - begun > _PREPARATION:
                raise Unavailable(
                    f"host {target.name if target else ''!r} did not prepare for the workload: "
                    + ("it fell silent" if silent else f"no end within {_PREPARATION:.0f} s"),
                    code="host_unreachable" if silent else "not_prepared",
                    hint="bring the host back, or move the workload elsewhere",
                )
            time.sleep(_LOOK)

    def _wait_for_rest(self, held: _Held, migration: Migration) -> None:
        patience: float | None = None
        begun = time.monotonic()
        while True:
            self._check(held)
            with self._services.units(read_only=True) as uow:
                workload = uow.workloads.get(migration.workload_id)
                source = uow.hosts.get(migration.source_host_id or "")
            if workload is None:
                raise Lost
            if source is None or source.state in SILENT:
                raise Unavailable(
                    f"host {source.name if source else ''!r} fell silent before workload "
                    f"{workload.name!r} was at rest",
                    code="host_unreachable",
                    hint="bring the host back, and move the workload again",
                )
            if is_at_rest(workload, migration):
                with self._own(held) as (uow, mine, fresh):
                    if rested(uow, mine, fresh, self._services.clock.now()):
                        return
            if patience is None:
                patience = workload.spec.stop_timeout + _GRACE
            if time.monotonic() - begun > patience:
                raise _does_not_rest(workload, patience)
            time.sleep(_LOOK)

    def _copy(self, held: _Held, migration: Migration) -> None:
        copied = self._copy_patiently(held, migration)
        with self._own(held) as (uow, mine, workload):
            mine.copied = copied.bytes
            now = self._services.clock.now()
            if mine.cancelling:
                give_up(self._services, uow, mine, workload, now, dict(BY_REQUEST))
            else:
                hand_over(self._services, uow, mine, workload, now)
        log.info("workload_moved", migration=held.id, bytes=copied.bytes)

    def _copy_patiently(self, held: _Held, migration: Migration) -> Copied:
        def progress(copied: int) -> None:
            held.copied = copied

        def wait(pause: float, error: Unavailable) -> None:
            log.warning("migration_copy_broke", migration=held.id, error=error.message)
            if held.stop.wait(pause):
                raise Cancelled from error

        return patiently(
            lambda: carry(self._services, migration, progress, held.stop.is_set), wait, _PAUSES
        )

    def _check(self, held: _Held) -> None:
        """Stop here where it was cancelled, or is another's.

        :raises Lost: it is not ours any more, or has been given up.
        """
        with self._services.units(read_only=True) as uow:
            migration = uow.migrations.get(held.id)
        if migration is None or migration.owner != self._owner:
            raise Lost
        if migration.cancelling:
            self._give_up(held, dict(BY_REQUEST))
            raise Lost
        if held.stop.is_set():
            raise Lost

    def _give_up(self, held: _Held, problem: dict[str, Any]) -> None:
        with self._own(held) as (uow, migration, workload):
            give_up(self._services, uow, migration, workload, self._services.clock.now(), problem)

    @contextmanager
    def _own(self, held: _Held) -> Iterator[tuple[UnitOfWork, Migration, Workload]]:
        """A unit of work with the migration and its workload locked, committed at the end.

        :raises Lost: the migration is not ours any more.
        """
        with self._services.units() as uow:
            workload = self._lock(uow, held.id)
            migration = uow.migrations.lock(held.id)
            if migration is None or migration.owner != self._owner or migration.phase not in WORK:
                raise Lost
            if workload is None:
                raise Lost
            yield uow, migration, workload
            uow.after_commit(self._services.committed.notify)
            uow.commit()

    def _lock(self, uow: UnitOfWork, migration_id: str) -> Workload | None:
        """Lock what a step may change beside its migration: both hosts, then the workload."""
        uow.hosts.lock_all_of(uow.migrations.hosts_of([migration_id]))
        migration = uow.migrations.get(migration_id)
        return uow.workloads.lock(migration.workload_id) if migration is not None else None

    def _beat(self, held: _Held, stop: threading.Event) -> None:
        """Renew the lease; ``held.stop`` is set once it is lost or cancelled."""
        if stop.is_set():
            held.stop.set()
        until = self._services.clock.now() + _LEASE
        with self._services.units() as uow:
            if not uow.migrations.renew(held.id, self._owner, until, held.copied):
                held.stop.set()
            uow.commit()


def _does_not_rest(workload: Workload, patience: float) -> Unavailable:
    why = workload.status.reason.message if workload.status.reason else ""
    return Unavailable(
        f"workload {workload.name!r} was not at rest after {patience:.0f} s: it is "
        f"{workload.status.state}{f' ({why})' if why else ''}",
        code="does_not_rest",
        hint="see why it does not stop, and move it again",
    )
