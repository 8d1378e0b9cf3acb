"""One control plane of several leads: it does what must be done once, for as long as it lives.

Each worker process asks for the lease all the time; who has it renews it. When its process or its
machine ends, another one has it within ``LIFE`` and ``RENEWAL``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.leadership import LIFE, RENEWAL, Term
from virtmgr.services.container import Services
from virtmgr.services.holding import new_holder

CONTROLLERS: Final = "controllers"
BREAK: Final = timedelta(seconds=10)  # without any leader: the control plane was away
_TICK: Final = 0.5  # seconds between looks whether it is time for a job

_log = structlog.get_logger(__name__)


class Leader:
    """This process's part in the election. Safe in threads."""

    def __init__(self, services: Services, name: str = CONTROLLERS) -> None:
        self._services = services
        self._name = name
        self._holder = new_holder()
        self._term: Term | None = None
        self._until = 0.0  # by the monotonic clock; past it, another may lead
        self._break = -float("inf")  # the end of the last time without any leader

    @property
    def term(self) -> Term | None:
        """The term in which this process leads just now; None: it does not."""
        return self._term if time.monotonic() < self._until else None

    def settled(self, seconds: float) -> bool:
        """Whether some control plane has led for so long: a break that every one was part of, or
        in which the database was away, is longer ago."""
        return time.monotonic() - self._break >= seconds

    def run(self, stop: threading.Event) -> None:
        """Stand for election until ``stop`` is set; then let another one lead at once."""
        while True:
            try:
                self.look()
            except VirtmgrError as error:
                _log.warning("leadership.unknown", error=error.message)
            except Exception:  # noqa: BLE001  a thread's last resort: logged, and tried again
                _log.exception("leadership.crashed")
            if stop.wait(RENEWAL.total_seconds()):
                break
        self.resign()

    def look(self) -> None:
        """Take the lease, or renew it."""
        asked = time.monotonic()
        before = self.term
        with self._services.units() as uow:
            taken = uow.leaderships.take(self._name, self._holder)
            if taken is not None:
                uow.commit()
        if taken is None:
            self._until = 0.0
        else:
            if taken.idle > BREAK:
                self._break = time.monotonic()
            self._term, self._until = taken, asked + LIFE.total_seconds()
        if (before is None) != (taken is None):
            _log.info("leadership.changed", name=self._name, leads=taken is not None)

    def resign(self) -> None:
        """Give the lease up."""
        term, self._until = self.term, 0.0
        if term is None:
            return
        try:
            with self._services.units() as uow:
                uow.leaderships.release(term)
                uow.commit()
        except VirtmgrError as error:  # then it runs out
            _log.warning("leadership.not_released", error=error.message)

    def every(
        self, seconds: float, stop: threading.Event, work: Callable[[], object], *, name: str
    ) -> None:
        """Do ``work`` each ``seconds`` while this process leads, until ``stop`` is set.

        What fails is logged and tried again. Another process may have begun to lead while one
        piece of work goes on: work must bear to be done twice, or ask
        ``LeadershipRepository.holds`` in the unit of work in which it commits.
        """
        due = time.monotonic()
        while not stop.wait(min(_TICK, seconds)):
            if time.monotonic() < due or self.term is None:
                continue
            try:
                work()
            except VirtmgrError as error:
                _log.warning("worker.failed", work=name, error=error.message)
            except Exception:  # noqa: BLE001  a thread's last resort: logged, and tried again
                _log.exception("worker.crashed", work=name)
            due = time.monotonic() + seconds
