"""The departures of running workloads from this host: one attempt for each migration."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from virtmgr.agent import migrating
from virtmgr.agent.migrating import Passages, Way
from virtmgr.domain.sync import DesiredWorkload, ObservedMove, Outgoing
from virtmgr.domain.workload import Reason
from virtmgr.ports.driver import CanMigrate, Departure, JobProgress

_TELL_EVERY: Final = 1.0  # seconds

Tell = Callable[[ObservedMove], None]
StillWanted = Callable[[], Outgoing | None]
"""What is desired of the departure now."""


class Departures:
    """Carries out what the reconciler decides; keeps nothing."""

    def __init__(self, context: Callable[[], ssl.SSLContext], passages: Passages) -> None:
        """Make them.

        :param context: with this host's certificate as it is now.
        """
        self._context = context
        self._passages = passages

    def start(self) -> None:
        """Called once, before any begins."""
        self._passages.sweep()

    def depart(
        self, driver: CanMigrate, workload: DesiredWorkload, wanted: StillWanted, tell: Tell
    ) -> Departure:
        """Let the workload go; how that ended.

        :raises DriverError: that is not known.
        """
        outgoing = workload.outgoing
        assert outgoing is not None
        passage = self._passages.of(outgoing.id)
        try:
            watch = _Watch(outgoing.id, wanted, tell)
            return migrating.depart(driver, workload, passage, self._way(workload), watch)
        finally:
            self._passages.remove(outgoing.id)

    def close_passage(self, migration_id: str) -> None:
        """Nothing comes to this host by this migration any more."""
        self._passages.remove(migration_id)

    def hand_over(self, workload: DesiredWorkload) -> None:
        """Tell the target to let it run: it has left, and that is on the disk."""
        migrating.hand_over(self._way(workload))

    def _way(self, workload: DesiredWorkload) -> Way:
        assert workload.outgoing is not None
        return Way(workload.outgoing, workload.id, self._context)


@dataclass
class _Watch:
    """``MigrationWatch``: asks what is desired, and tells now and then."""

    id: str
    wanted: StillWanted
    tell: Tell
    told_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def cancelled(self) -> bool:
        outgoing = self.wanted()
        return outgoing is None or outgoing.id != self.id or outgoing.cancelled

    def progress(self, progress: JobProgress) -> None:
        with self.lock:
            if time.monotonic() - self.told_at < _TELL_EVERY:
                return
            self.told_at = time.monotonic()
        share, copied = round(progress.share, 3), progress.copied
        self.tell(ObservedMove(id=self.id, progress=share, copied=copied, message=progress.message))


NOT_BEGUN: Final = Reason(
    code="not_running",
    message="it did not run when it was to go",
    hint="see its state, and move it again",
)
CANCELLED: Final = Reason(code="cancelled", message="the migration was cancelled")
