"""Keeps every workload of this host as desired: takes in what is, and gives each its rounds.

One workload is worked on by one thread at a time; many workloads at once. The only call that may
run beside another for the same workload is a forced stop, which ends a graceful one early.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from virtmgr.agent.book import Book
from virtmgr.agent.departing import Departures
from virtmgr.agent.files import Entry, StateFiles
from virtmgr.agent.guard import Guard
from virtmgr.agent.migrating import mover
from virtmgr.agent.networks import NetworkKeeper
from virtmgr.agent.outbox import Outbox
from virtmgr.agent.removals import Orphans, VolumeRemoval
from virtmgr.agent.rounds import LOOK_AGAIN, Rounds
from virtmgr.agent.steps import StepRunner
from virtmgr.agent.timers import Timers
from virtmgr.domain.errors import HostError, StorageError, VirtmgrError
from virtmgr.domain.plan import Step
from virtmgr.domain.remembering import arrived_live
from virtmgr.domain.sync import DesiredNetwork, DesiredWorkload
from virtmgr.domain.workload import Kind
from virtmgr.ports.clock import Clock
from virtmgr.ports.driver import WorkloadDriver
from virtmgr.ports.host import HostStorage

_THREADS = 16
_URGENT_THREADS = 4  # for forced stops, which must not queue behind graceful ones
_ROUNDS = 8  # of planning in one go, before other workloads get their turn
_TAKE_OVER_PATIENCE = 30.0  # seconds that a guest that came waits for a thread's end

_log = structlog.get_logger()


class Reconciler:
    """All workloads of one host."""

    def __init__(
        self,
        *,
        runner: StepRunner,
        networks: NetworkKeeper,
        storage: HostStorage,
        files: StateFiles,
        outbox: Outbox,
        clock: Clock,
        boot_id: str,
        guard: Guard,
        departures: Departures | None = None,
    ) -> None:
        self.book = Book(files)
        self._departures = departures
        self._runner = runner
        self._networks = networks
        self._files = files
        self._boot_id = boot_id
        self._guard = guard
        self._lock = threading.Lock()
        self._watching = threading.Lock()
        self._idle = threading.Condition(self._lock)  # some workload has no thread any more
        self._busy: dict[str, Step | None] = {}  # those with a thread, and what it does
        self._again: set[str] = set()  # those to look at again once their thread is done
        self._wishing = threading.Lock()  # so that the newest wish is the last one
        self._network_wish: tuple[DesiredNetwork, ...] | None = None  # None: not known yet
        self._network_wish_kept: tuple[DesiredNetwork, ...] | None = None  # what is on disk
        self._urgent = ThreadPoolExecutor(_URGENT_THREADS, thread_name_prefix="urgent")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="workload")
        self._timers = Timers(self.touch)
        self._volumes = VolumeRemoval(storage, outbox, self.book.needs_volume, self._threads.submit)
        self._orphans = Orphans(self.book.ids, self._threads.submit)
        self._closing = False
        self._rounds = Rounds(
            book=self.book,
            runner=runner,
            outbox=outbox,
            timers=self._timers,
            guard=guard,
            departures=departures,
            clock=clock,
            boot_id=boot_id,
            begin=self._begin,
            forgotten=self._forgotten,
        )

    @property
    def drivers(self) -> Mapping[Kind, WorkloadDriver]:
        return self._runner.drivers

    def start(self) -> None:
        """Take up what was kept on disk and what runs; needs no control plane."""
        if self._departures is not None:
            self._departures.start()
        self.book.load()
        self._watch()
        self._network_wish = self._network_wish_kept = self._files.load_networks()
        self._networks.start()
        self._wish_networks()
        for driver in set(self.drivers.values()):
            driver.recover(self.touch)
        self._timers.start()
        self._guard.start(self._lease_is_back)
        for workload_id in self.book.ids():
            self.touch(workload_id)

    def close(self) -> None:
        """Stop working. Workloads go on."""
        with self._lock:
            self._closing = True
        self._timers.close()
        for threads in (self._urgent, self._threads):
            threads.shutdown(wait=True, cancel_futures=True)
        self._networks.close()
        for driver in set(self.drivers.values()):
            driver.close()

    def apply(
        self,
        workloads: Sequence[DesiredWorkload],
        networks: Sequence[DesiredNetwork] | None,
        *,
        full: bool,
    ) -> None:
        """Take in what is desired now: all of it, or what changed.

        :param networks: all that there should be; None: those that are known.
        :raises StorageError: some could not be kept on disk. Their owners are told, the others
            are taken in, and all of it has to be applied again.
        """
        changed = []
        failures: list[StorageError] = []
        for workload in workloads:
            try:
                if self._take_in(workload):
                    changed.append(workload)
            except StorageError as error:
                failures.append(error)
                self._rounds.not_taken_in(workload, error)
        if full:
            self._drop_all_but({workload.id for workload in workloads})
            self._orphans.expect(self.drivers.values())
        self._orphans.search()
        self._wish_networks(networks)
        for workload in changed:
            self.touch(workload.id)
        if failures:
            raise failures[0]

    def remove_volumes(self, volume_ids: Sequence[str]) -> None:
        """Remove the files of volumes that are not in the inventory any more."""
        self._volumes.remove(volume_ids)

    def touch(self, workload_id: str) -> None:
        """Look at a workload soon; from any thread."""
        with self._lock:
            if self._closing:
                return
            if workload_id in self._busy:
                self._again.add(workload_id)
                return
            self._busy[workload_id] = None
            self._threads.submit(self._work, workload_id)

    def take_over(self, workload: DesiredWorkload) -> None:
        """Let a workload run that came while it ran: its source has let go of it.

        :raises HostError: it is not here, or not whole; or not expected any more.
        """
        incoming = workload.incoming
        with self._idle:
            free = self._idle.wait_for(lambda: workload.id not in self._busy, _TAKE_OVER_PATIENCE)
            entry = self.book.entry(workload.id)
            wanted = entry.desired.incoming if entry is not None else None
            if not free or entry is None or incoming is None or wanted != incoming:
                raise HostError(
                    f"cannot let workload {workload.name!r} run here: it is not expected",
                    code="not_expected",
                )
            self._busy[workload.id] = None
        try:
            mover(self._runner.driver(workload), workload).take_over(entry.desired)
            memory = arrived_live(entry.memory, incoming.id, boot_id=self._boot_id)
            self.book.remember(entry, memory)
        finally:
            with self._lock:
                self._busy.pop(workload.id, None)
                self._again.discard(workload.id)
                self._idle.notify_all()
            self.touch(workload.id)

    # ---- what is desired

    def _take_in(self, workload: DesiredWorkload) -> bool:
        if self.book.desired(workload.id) == workload:
            return False
        with self._lock:
            known = self.book.want(workload)
            stopping = self._busy.get(workload.id) is Step.STOP
        self._watch()
        try:
            self.book.save(workload.id, durable=True)
        except StorageError as error:
            if not workload.deleting:  # which frees space, and is asked for again after a crash
                self.book.want_again(workload.id, known)
                raise
            _log.warning("workload.delete_not_kept", workload=workload.id, error=error.message)
        if stopping and (workload.force_stop or workload.deleting):
            self._urgent.submit(self._force_stop, workload)
        return True

    def _drop_all_but(self, keep: set[str]) -> None:
        """Whatever is not desired here goes."""
        for entry in self.book.entries():
            if entry.desired.id not in keep and not entry.desired.deleting:
                _log.warning("workload.not_desired", workload=entry.desired.id)
                self._take_in(entry.desired.model_copy(update={"deleting": True}))
                self.touch(entry.desired.id)

    def _force_stop(self, workload: DesiredWorkload) -> None:
        with self._lock:
            if self._busy.get(workload.id) is not Step.STOP:
                return
        try:
            self._runner.driver(workload).stop(workload.id, timeout=0, force=True)
        except VirtmgrError as error:
            _log.warning("workload.force_stop_failed", workload=workload.id, error=error.message)

    def _wish_networks(self, networks: Sequence[DesiredNetwork] | None = None) -> None:
        """Let the host have these networks, or those that are known, for the workloads of now."""
        with self._wishing:
            if networks is not None:
                self._network_wish = tuple(networks)
            if self._network_wish is None:
                return
            if self._network_wish != self._network_wish_kept:
                self._keep_networks(self._network_wish)
            workloads = [e.desired for e in self.book.entries() if not e.desired.deleting]
            self._networks.wish(self._network_wish, workloads)

    def _keep_networks(self, networks: tuple[DesiredNetwork, ...]) -> None:
        """Write them for the next agent; where that fails they are made all the same."""
        try:
            self._files.save_networks(networks)
        except StorageError as error:
            _log.warning("networks.not_kept", error=error.message)
        else:
            self._network_wish_kept = networks

    # ---- one workload

    def _work(self, workload_id: str) -> None:
        try:
            for _ in range(_ROUNDS):
                with self._lock:
                    self._again.discard(workload_id)
                    entry = self.book.entry(workload_id)
                if entry is None or self._closing or not self._rounds.round(entry):
                    break
        except Exception:  # noqa: BLE001  a thread's last resort: logged, and tried again
            _log.exception("workload.crashed", workload=workload_id)
            self._timers.after(LOOK_AGAIN, workload_id)
        finally:
            with self._lock:
                self._busy.pop(workload_id, None)
                self._idle.notify_all()
                again = workload_id in self._again
            if again:
                self.touch(workload_id)

    def _begin(self, step: Step, entry: Entry) -> bool:
        """Note what is done now; not where something else is desired meanwhile."""
        with self._lock:
            if self._closing or self.book.desired(entry.desired.id) != entry.desired:
                return False
            self._busy[entry.desired.id] = step
            return True

    def _forgotten(self) -> None:
        self._watch()
        self._wish_networks()

    # ---- high availability

    def _watch(self) -> None:
        """Let the watchdog know which workloads end with the lease."""
        with self._watching:
            self._guard.watch(self.book.highly_available())

    def _lease_is_back(self) -> None:
        for workload_id in self.book.highly_available():
            self.touch(workload_id)
