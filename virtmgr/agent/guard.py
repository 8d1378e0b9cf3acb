"""The agent's half of self-fencing: keeps the lease, and the watchdog that acts when it ends.

Highly available workloads are started only while the lease holds, and the lease is prolonged only
while the watchdog is alive. So whatever happens to the agent afterwards, such a workload does not
run past the lease (docs/ha.md).
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from virtmgr.agent.pacing import within_lease
from virtmgr.agent.watchdog import (
    AGENT,
    ALIVE,
    BEAT,
    DEADLINE,
    GATE,
    GUARDED,
    LOOK,
    STOPPED,
    FenceFiles,
    boottime,
    start_of,
    try_lock,
)
from virtmgr.domain.errors import HostError

_STALE: Final = 8 * LOOK  # seconds without a beat: the watchdog hangs
_TICK: Final = 0.1
_BIRTH: Final = 10.0  # seconds that a new watchdog has for its first beat

_log = structlog.get_logger()


class Guard:
    """The lease of this host. Safe in threads."""

    def __init__(self, directory: Path) -> None:
        """:param directory: of this boot of the host only."""
        self._files = FenceFiles(directory)
        self._lock = threading.Lock()
        self._guarded: frozenset[str] = frozenset()
        self._asked = 0.0  # the deadline that the last sync gave
        self._deadline = self._files.read_time(DEADLINE)  # an agent before may have a lease
        self._lease = 0.0
        self._watchdog: int | None = None
        self._born = 0.0
        self._closing = threading.Event()
        self._back: Callable[[], None] = lambda: None
        (directory / AGENT).write_text(f"{os.getpid()} {start_of(os.getpid())}")

    def start(self, back: Callable[[], None]) -> None:
        """Look after the watchdog from now on; ``back`` is called when the lease begins."""
        self._back = back
        self._replace_watchdog()  # one of an agent before may be of an older version
        threading.Thread(target=self._supervise, name="guard", daemon=True).start()

    def close(self) -> None:
        """The agent ends. The watchdog goes on: highly available workloads end with the lease."""
        self._closing.set()

    def watch(self, workload_ids: frozenset[str]) -> None:
        """These are to be stopped when the lease ends. Written before this returns.

        :raises OSError: it cannot be; then none of them may be started.
        """
        with self._lock:
            if workload_ids != self._guarded:
                self._files.write_ids(GUARDED, workload_ids)
                self._guarded = workload_ids

    def is_needed(self) -> bool:
        """Whether there is anything to guard."""
        return bool(self._guarded)

    def pause(self, otherwise: float) -> float:
        """Seconds between syncs, or that one may take: a third of the lease, where it counts."""
        return within_lease(otherwise, self._lease, guarded=self.is_needed())

    def granted(self, sent: float, seconds: float) -> None:
        """A sync, sent at ``sent`` (``boottime``), was answered, and is about to be taken in.

        A lease that ends later, of a time when nothing was to be guarded, ends with this one: the
        control plane counts on it for what the answer brings.
        """
        ends = sent + seconds
        with self._lock:
            self._asked = min(self._asked, ends)
            if ends < self._deadline:
                self._files.write_time(DEADLINE, ends)
                self._deadline = ends

    def renewed(self, sent: float, seconds: float) -> None:
        """The same sync was taken in."""
        with self._lock:
            self._asked, self._lease = max(self._asked, sent + seconds), seconds
        self._prolong()

    def holds(self) -> bool:
        """Whether highly available workloads may be started."""
        return boottime() < self._deadline

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start of a highly available workload. The watchdog is shut out meanwhile; if
        the lease ends before the start is over, it kills this process.

        :raises HostError: the lease has ended.
        """
        gate = self._files.open_lock(GATE)
        try:
            # Where the lease has just begun, the watchdog opens the gate at its next look.
            while not (passed := try_lock(gate, fcntl.LOCK_SH)) and self.holds():
                time.sleep(_TICK / 2)
            if not (passed and self.holds()):
                raise HostError(
                    "it is highly available, and its host has no lease now",
                    code="no_lease",
                    hint="it is started when the host reaches the control plane",
                )
            yield
        finally:
            os.close(gate)

    def was_stopped(self, workload_id: str) -> bool:
        """Whether the watchdog stopped it, and nobody has taken note."""
        return workload_id in self._files.read_ids(STOPPED)

    def note_stopped(self, workload_id: str) -> None:
        """Note is taken.

        :raises HostError: the lease has ended.
        """
        with self._lock, self.starting():
            self._files.write_ids(STOPPED, self._files.read_ids(STOPPED) - {workload_id})

    def _supervise(self) -> None:
        while not self._closing.wait(_TICK):
            try:
                if not self._guarded:
                    continue
                if self._is_alive():
                    self._prolong()
                elif not self._is_coming():
                    self._replace_watchdog()
            except OSError as error:
                _log.error("guard.failed", error=str(error))

    def _is_alive(self) -> bool:
        if self._has_ended():
            self._born = boottime() - _BIRTH + 1  # again in a second
            return False
        return boottime() - self._files.read_time(BEAT) < _STALE

    def _is_coming(self) -> bool:
        """Whether a watchdog was started just now and has had no time for a beat."""
        return self._files.read_time(BEAT) < self._born and boottime() - self._born < _BIRTH

    def _prolong(self) -> None:
        """Bring the deadline forward, if somebody watches it."""
        with self._lock:
            if self._asked <= self._deadline or not self._is_alive():
                return
            lapsed = self._deadline < boottime() < self._asked
            self._files.write_time(DEADLINE, self._asked)
            self._deadline = self._asked
        if lapsed:
            self._back()

    def _replace_watchdog(self) -> None:
        """End the one there is, if any; start one if there is something to guard."""
        lock = self._files.open_lock(ALIVE)
        try:
            if not try_lock(lock, fcntl.LOCK_EX):
                pid, _, start = os.pread(lock, 64, 0).decode().partition(" ")
                if pid.isdigit() and start_of(int(pid)) == start:
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
        finally:
            os.close(lock)
        if not self._guarded:
            return
        self._has_ended()
        self._born = boottime()
        command = [sys.executable, "-m", "virtmgr.agent.watchdog", str(self._files.directory)]
        # A session of its own, and no child to wait for: it outlives the agent.
        self._watchdog = os.posix_spawn(sys.executable, command, os.environ, setsid=True)
        _log.info("guard.watchdog_started", pid=self._watchdog)

    def _has_ended(self) -> bool:
        """Whether the watchdog that this agent started has ended; it is reaped then."""
        if self._watchdog is not None:
            try:
                ended = os.waitpid(self._watchdog, os.WNOHANG) != (0, 0)
            except ChildProcessError:
                ended = True
            if ended:
                self._watchdog = None
                return True
        return False
