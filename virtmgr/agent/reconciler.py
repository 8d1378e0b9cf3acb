"""Keeps every workload of this host as desired: ask ``plan``, carry out its steps, ask again.

One workload is worked on by one thread at a time; many workloads at once. The only call that may
run beside another for the same workload is a forced stop, which ends a graceful one early.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial

import structlog

from virtmgr.agent.departing import CANCELLED, NOT_BEGUN, Departures
from virtmgr.agent.files import Entry, StateFiles
from virtmgr.agent.guard import Guard
from virtmgr.agent.migrating import mover
from virtmgr.agent.networks import NetworkKeeper
from virtmgr.agent.outbox import Outbox
from virtmgr.agent.removals import Orphans, VolumeRemoval
from virtmgr.agent.steps import StepRunner
from virtmgr.agent.telling import as_it_ran, gone, observation, observed, unexpected
from virtmgr.agent.timers import Timers
from virtmgr.domain.errors import HostError, ImageError, StorageError, Unsupported, VirtmgrError
from virtmgr.domain.id_ranges import free_range
from virtmgr.domain.observing import STATE_DURING, observed_state, state_after_failure
from virtmgr.domain.plan import (
    Memory,
    Plan,
    Step,
    failure_delay,
    held_back,
    plan,
)
from virtmgr.domain.remembering import (
    after_departure,
    after_step,
    arrived_live,
    before_start,
    carried_out,
    has_departed,
)
from virtmgr.domain.sync import (
    DesiredImage,
    DesiredNetwork,
    DesiredWorkload,
    ObservedMove,
    ObservedVolume,
    Outgoing,
)
from virtmgr.domain.workload import Kind, Reason, State
from virtmgr.ports.clock import Clock
from virtmgr.ports.driver import Departure, Inspection, RuntimeState, WorkloadDriver
from virtmgr.ports.host import HostStorage

_THREADS = 16
_URGENT_THREADS = 4  # for forced stops, which must not queue behind graceful ones
_ROUNDS = 8  # of planning in one go, before other workloads get their turn
_TRIES_BEFORE_FAILED = 3
_TAKE_OVER_PATIENCE = 30.0  # seconds that a guest that came waits for a thread's end
_LOOK_AGAIN = 60.0  # seconds between looks at a workload of which no news came

_NO_DEPARTURE = Departure(departed=False)

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
        self._departures = departures
        self._departed: dict[str, Departure] = {}  # the last one of each workload
        self._runner = runner
        self._networks = networks
        self._files = files
        self._outbox = outbox
        self._clock = clock
        self._boot_id = boot_id
        self._guard = guard
        self._lock = threading.Lock()
        self._watching = threading.Lock()
        self._idle = threading.Condition(self._lock)  # some workload has no thread any more
        self._entries: dict[str, Entry] = {}
        self._busy: dict[str, Step | None] = {}  # those with a thread, and what it does
        self._again: set[str] = set()  # those to look at again once their thread is done
        self._network_wish: tuple[DesiredNetwork, ...] = ()
        self._saving = tuple(threading.Lock() for _ in range(_THREADS))
        self._urgent = ThreadPoolExecutor(_URGENT_THREADS, thread_name_prefix="urgent")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="workload")
        self._timers = Timers(self.touch)
        self._volumes = VolumeRemoval(storage, outbox, self._needs_volume, self._threads.submit)
        self._orphans = Orphans(self._known, self._threads.submit)
        self._closing = False

    @property
    def drivers(self) -> Mapping[Kind, WorkloadDriver]:
        return self._runner.drivers

    def start(self) -> None:
        """Take up what was kept on disk and what runs; needs no control plane."""
        if self._departures is not None:
            self._departures.start()
        self._entries = self._files.load()
        self._watch()
        self._network_wish = self._files.load_networks()
        for driver in set(self.drivers.values()):
            driver.recover(self.touch)
        self._networks.start()
        self._wish_networks()
        self._timers.start()
        self._guard.start(self._lease_is_back)
        for workload_id in list(self._entries):
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
                self._not_taken_in(workload, error)
        if full:
            self._drop_all_but({workload.id for workload in workloads})
            self._orphans.expect(self.drivers.values())
        self._orphans.search()
        wish = self._network_wish if networks is None else tuple(networks)
        if wish != self._network_wish:
            self._network_wish = wish
            self._files.save_networks(wish)
        self._wish_networks()
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

    def running(self) -> dict[Kind, list[str]]:
        """Ids by kind, to ask their drivers for usage."""
        with self._lock:
            found: dict[Kind, list[str]] = {}
            for entry in self._entries.values():
                found.setdefault(entry.desired.kind, []).append(entry.desired.id)
            return found

    def images(self) -> list[DesiredImage]:
        """What the workloads of this host need, running or not; some more than once."""
        with self._lock:
            workloads = [entry.desired for entry in self._entries.values()]
        return [image for w in workloads for image in (w.image, w.cdrom) if image is not None]

    def desired(self, workload_id: str) -> DesiredWorkload | None:
        with self._lock:
            entry = self._entries.get(workload_id)
        return entry.desired if entry is not None else None

    def take_over(self, workload: DesiredWorkload) -> None:
        """Let a workload run that came while it ran: its source has let go of it.

        :raises HostError: it is not here, or not whole; or not expected any more.
        """
        incoming = workload.incoming
        with self._idle:
            free = self._idle.wait_for(lambda: workload.id not in self._busy, _TAKE_OVER_PATIENCE)
            entry = self._entries.get(workload.id)
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
            self._keep(entry, memory)
        finally:
            with self._lock:
                self._busy.pop(workload.id, None)
                self._again.discard(workload.id)
                self._idle.notify_all()
            self.touch(workload.id)

    # ---- what is desired

    def _take_in(self, workload: DesiredWorkload) -> bool:
        with self._lock:
            known = self._entries.get(workload.id)
            if known is not None and known.desired == workload:
                return False
            entry = replace(known, desired=workload) if known else self._new_entry(workload)
            self._entries[workload.id] = entry
            stopping = self._busy.get(workload.id) is Step.STOP
        self._watch()
        try:
            self._save(workload.id, durable=True)
        except StorageError as error:
            if not workload.deleting:  # which frees space, and is asked for again after a crash
                self._take_back(workload.id, known)
                raise
            _log.warning("workload.delete_not_kept", workload=workload.id, error=error.message)
        if stopping and (workload.force_stop or workload.deleting):
            self._urgent.submit(self._force_stop, workload)
        return True

    def _take_back(self, workload_id: str, known: Entry | None) -> None:
        """What is desired is acted on only once it is on disk."""
        with self._lock:
            if known is None:
                self._entries.pop(workload_id, None)
            else:
                current = self._entries.get(workload_id, known)
                self._entries[workload_id] = replace(current, desired=known.desired)

    def _not_taken_in(self, workload: DesiredWorkload, error: StorageError) -> None:
        """Tell its owner; it is what it was before."""
        known = self._entries.get(workload.id) or Entry(desired=workload)
        try:
            seen = self._runner.inspect(workload)
        except VirtmgrError as unseen:
            _log.warning("workload.not_seen", workload=workload.id, error=unseen.message)
            return
        state = state_after_failure(Step.PREPARE, observation(seen), final=True)
        reason = Reason(code=error.code, message=error.message, hint=error.hint)
        self._report(replace(known, desired=workload), state, seen, reason=reason, final=True)

    def _new_entry(self, workload: DesiredWorkload) -> Entry:
        base = 0
        if workload.kind is Kind.CONTAINER:
            base = free_range({entry.id_base for entry in self._entries.values()})
        return Entry(desired=workload, id_base=base)

    def _drop_all_but(self, keep: set[str]) -> None:
        """Whatever is not desired here goes."""
        with self._lock:
            strays = [entry for id, entry in self._entries.items() if id not in keep]
        for entry in strays:
            if not entry.desired.deleting:
                _log.warning("workload.not_desired", workload=entry.desired.id)
                self._take_in(entry.desired.model_copy(update={"deleting": True}))
                self.touch(entry.desired.id)

    def _known(self) -> set[str]:
        with self._lock:
            return set(self._entries)

    def _force_stop(self, workload: DesiredWorkload) -> None:
        with self._lock:
            if self._busy.get(workload.id) is not Step.STOP:
                return
        try:
            self._runner.driver(workload).stop(workload.id, timeout=0, force=True)
        except VirtmgrError as error:
            _log.warning("workload.force_stop_failed", workload=workload.id, error=error.message)

    def _wish_networks(self) -> None:
        with self._lock:
            workloads = [e.desired for e in self._entries.values() if not e.desired.deleting]
        self._networks.wish(self._network_wish, workloads)

    def _needs_volume(self, volume_id: str) -> bool:
        with self._lock:
            return any(
                volume.id == volume_id
                for entry in self._entries.values()
                for volume in entry.desired.volumes
            )

    # ---- one workload

    def _work(self, workload_id: str) -> None:
        try:
            for _ in range(_ROUNDS):
                with self._lock:
                    self._again.discard(workload_id)
                    entry = self._entries.get(workload_id)
                if entry is None or self._closing or not self._round(entry):
                    break
        except Exception:  # noqa: BLE001  a thread's last resort: logged, and tried again
            _log.exception("workload.crashed", workload=workload_id)
            self._timers.after(_LOOK_AGAIN, workload_id)
        finally:
            with self._lock:
                self._busy.pop(workload_id, None)
                self._idle.notify_all()
                again = workload_id in self._again
            if again:
                self.touch(workload_id)

    def _round(self, entry: Entry) -> bool:
        """Look, plan and act once; whether to do so again at once."""
        try:
            seen = self._runner.inspect(entry.desired)
        except VirtmgrError as error:
            self._failed(entry, None, error, None)
            return False
        now = self._clock.now()
        entry = self._note_stopped(entry, seen)
        what = plan(entry.desired, entry.memory, observation(seen), boot_id=self._boot_id, now=now)
        what = held_back(what, entry.desired, has_lease=self._guard.holds(), now=now)
        if not what.steps:
            self._settled(entry, seen, what)
            return False
        for step in what.steps:
            if not self._begin(step, entry):
                return True
            try:
                entry = self._step(step, entry, seen, what)
            except VirtmgrError as error:
                self._failed(self._as_left_by(step, entry), step, error, seen)
                return False
            except Exception as error:  # noqa: BLE001  its owner learns of a bug of ours as well
                _log.exception("workload.crashed", workload=entry.desired.id, step=step.value)
                entry = self._as_left_by(step, entry)
                self._failed(entry, step, unexpected(step, entry.desired, error), seen)
                return False
            if step is Step.FORGET:
                return False
        self._keep(entry, carried_out(entry.desired, entry.memory))
        return True

    def _as_left_by(self, step: Step, entry: Entry) -> Entry:
        """The entry after a step that failed: a departure that was begun is not begun again."""
        if step is not Step.DEPART:
            return entry
        with self._lock:
            current = self._entries.get(entry.desired.id, entry)
        return replace(entry, memory=current.memory)

    # ---- high availability

    def _watch(self) -> None:
        """Let the watchdog know which workloads end with the lease."""
        with self._watching:
            with self._lock:
                entries = list(self._entries.values())
            self._guard.watch(frozenset(e.desired.id for e in entries if e.desired.spec.ha.enabled))

    def _lease_is_back(self) -> None:
        with self._lock:
            waiting = [id for id, e in self._entries.items() if e.desired.spec.ha.enabled]
        for workload_id in waiting:
            self.touch(workload_id)

    def _note_stopped(self, entry: Entry, seen: Inspection) -> Entry:
        """What the watchdog stopped is as after a boot: it did not end by itself."""
        workload = entry.desired
        if not (workload.spec.ha.enabled and self._guard.holds()):
            return entry
        if not self._guard.was_stopped(workload.id):
            return entry
        if seen.state not in (RuntimeState.RUNNING, RuntimeState.PAUSED):
            entry = self._keep(entry, replace(entry.memory, boot_id=""), needed=True)
        self._guard.note_stopped(workload.id)
        return entry

    def _begin(self, step: Step, entry: Entry) -> bool:
        """Note what is done now; not where something else is desired meanwhile."""
        with self._lock:
            current = self._entries.get(entry.desired.id)
            if self._closing or current is None or current.desired != entry.desired:
                return False
            self._busy[entry.desired.id] = step
            return True

    def _step(self, step: Step, entry: Entry, seen: Inspection, what: Plan) -> Entry:
        if step in (Step.DEPART, Step.SETTLE):
            return self._depart(step, entry, seen)
        during = STATE_DURING.get(step)
        if during is not None:
            self._report(entry, during, seen)
        if step is Step.START:
            memory = before_start(
                entry.desired, entry.memory, observation(seen), what, boot_id=self._boot_id
            )
            entry = self._keep(entry, memory, needed=True)
        tell = partial(self._tell, entry, during, seen)
        is_ha_start = step is Step.START and entry.desired.spec.ha.enabled
        with self._guard.starting() if is_ha_start else nullcontext():
            waiting = self._runner.run(step, entry, tell)
        if step is Step.FORGET:
            self._forget(entry)
            return entry
        kept = after_step(step, entry.desired, entry.memory, waiting)
        once = step in (Step.CLONE, Step.ARRIVE)  # never again, whatever happens to the host
        return self._keep(entry, kept, needed=once, durable=once)

    def _depart(self, step: Step, entry: Entry, seen: Inspection) -> Entry:
        """Let it go to another host, or see how an earlier attempt ended; keep that, and tell.

        Only once it is on the disk that it has left may the target let it run.
        """
        workload, outgoing = entry.desired, entry.desired.outgoing
        if outgoing is None or self._departures is None:
            raise AssertionError("no departure is desired")
        driver = mover(self._runner.driver(workload), workload)
        if step is Step.DEPART:
            memory = replace(entry.memory, departing=outgoing.id)
            entry = self._keep(entry, memory, needed=True, durable=True)
            departure = self._departures.depart(
                driver,
                workload,
                partial(self._outgoing, workload.id),
                partial(self._on_way, entry, seen),
            )
        elif entry.memory.departing == outgoing.id:
            departure = driver.settle(workload.id)
        else:
            departure = Departure(False, CANCELLED if outgoing.cancelled else NOT_BEGUN)
        memory = after_departure(entry.memory, outgoing.id, departed=departure.departed)
        self._departed[workload.id] = departure
        entry = self._keep(entry, memory, needed=True, durable=True)
        if departure.departed:
            self._report(entry, State(workload.state.value), as_it_ran(seen))
            self._departures.hand_over(workload)
        return entry

    def _outgoing(self, workload_id: str) -> Outgoing | None:
        desired = self.desired(workload_id)
        return desired.outgoing if desired is not None else None

    def _on_way(self, entry: Entry, seen: Inspection, move: ObservedMove) -> None:
        state = State.PAUSED if seen.state is RuntimeState.PAUSED else State.RUNNING
        self._report(entry, state, seen, move=move)

    def _keep(
        self, entry: Entry, memory: Memory, *, needed: bool = False, durable: bool = False
    ) -> Entry:
        """Remember ``memory``; what is desired may have changed meanwhile and stays as it is.

        :param needed: what comes next must not happen unless it is on disk. Without it a crash
            may let the last step be done again, which is no harm.
        :raises StorageError: it is needed, and cannot be written.
        """
        with self._lock:
            current = self._entries.get(entry.desired.id, entry)
            self._entries[entry.desired.id] = replace(current, memory=memory)
        if memory != entry.memory:
            try:
                self._save(entry.desired.id, durable=durable)
            except StorageError as error:
                if needed:
                    raise
                _log.warning("workload.not_kept", workload=entry.desired.id, error=error.message)
        return replace(entry, memory=memory)

    def _save(self, workload_id: str, *, durable: bool) -> None:
        """Write a workload as it is now; two threads never write one workload's file at once."""
        with self._saving[hash(workload_id) % len(self._saving)]:
            with self._lock:
                entry = self._entries.get(workload_id)
            if entry is not None:
                self._files.save(entry, durable=durable)
            else:
                self._files.remove(workload_id)

    def _forget(self, entry: Entry) -> None:
        workload_id = entry.desired.id
        with self._lock:
            self._entries.pop(workload_id, None)
            self._departed.pop(workload_id, None)
        if self._departures is not None and entry.memory.received:
            self._departures.close_passage(entry.memory.received)
        self._save(workload_id, durable=True)
        self._watch()
        self._outbox.put(gone(entry))
        self._wish_networks()

    # ---- what is told

    def _settled(self, entry: Entry, seen: Inspection, what: Plan) -> None:
        state, reason = observed_state(entry.desired, observation(seen), what)
        if has_departed(entry.desired, entry.memory):
            state, reason, seen = State(entry.desired.state.value), None, as_it_ran(seen)
        if what.wait_until is not None:
            wait = (what.wait_until - self._clock.now()).total_seconds()
            self._timers.after(wait, entry.desired.id)
            if entry.memory.failures:
                return  # the failure stays reported until the next try
        else:
            self._timers.after(_LOOK_AGAIN, entry.desired.id)
            if entry.memory.failures:
                entry = self._keep(entry, replace(entry.memory, failures=0, retry_at=None))
        self._report(entry, state, seen, reason=reason)
        for volume in entry.desired.volumes:
            self._outbox.put_volume(ObservedVolume(id=volume.id, ready=True))

    def _failed(
        self, entry: Entry, step: Step | None, error: VirtmgrError, seen: Inspection | None
    ) -> None:
        failures = entry.memory.failures + 1
        delay = failure_delay(failures)
        final = failures >= _TRIES_BEFORE_FAILED or isinstance(error, ImageError | Unsupported)
        _log.warning(
            "workload.step_failed",
            workload=entry.desired.id,
            step=step.value if step else "inspect",
            error=error.message,
            failures=failures,
        )
        memory = replace(
            entry.memory,
            failures=failures,
            failed_generation=entry.desired.generation,
            retry_at=self._clock.now() + timedelta(seconds=delay),
        )
        entry = self._keep(entry, memory)
        self._timers.after(delay, entry.desired.id)
        reason = Reason(code=error.code, message=error.message, hint=error.hint)
        state = state_after_failure(step, observation(seen) if seen else None, final=final)
        refused = None
        if step is Step.RECEIVE and final and entry.desired.incoming is not None:
            refused = ObservedMove(id=entry.desired.incoming.id, refused=True, reason=reason)
        self._report(entry, state, seen, reason=reason, final=final, move=refused)

    def _tell(self, entry: Entry, during: State | None, seen: Inspection, progress: str) -> None:
        if during is not None:
            self._report(entry, during, seen, progress=progress)

    def _report(
        self,
        entry: Entry,
        state: State,
        seen: Inspection | None,
        *,
        reason: Reason | None = None,
        progress: str | None = None,
        final: bool = False,
        move: ObservedMove | None = None,
    ) -> None:
        last = self._departed.get(entry.desired.id, _NO_DEPARTURE)
        self._outbox.put(
            observed(
                entry,
                state,
                seen,
                last=last,
                reason=reason,
                progress=progress,
                final=final,
                move=move,
            )
        )
