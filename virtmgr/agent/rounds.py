"""One round of one workload: look, ask ``plan``, carry out its steps, and tell what came of it.

Threads, and which workload has its turn, are the reconciler's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from virtmgr.agent.book import Book
from virtmgr.agent.departing import CANCELLED, NOT_BEGUN, Departures
from virtmgr.agent.files import Entry
from virtmgr.agent.guard import Guard
from virtmgr.agent.migrating import mover
from virtmgr.agent.outbox import Outbox
from virtmgr.agent.steps import StepRunner
from virtmgr.agent.telling import as_it_ran, gone, in_names, observation, observed, unexpected
from virtmgr.agent.timers import Timers
from virtmgr.domain.errors import HostError, StorageError, VirtmgrError
from virtmgr.domain.observing import STATE_DURING, observed_state, state_after_failure
from virtmgr.domain.plan import Plan, Step, held_back, plan
from virtmgr.domain.remembering import (
    after_departure,
    after_failure,
    after_step,
    before_start,
    carried_out,
    has_departed,
    has_failed_for_good,
    without_failures,
)
from virtmgr.domain.sync import DesiredWorkload, ObservedMove, ObservedVolume, Outgoing
from virtmgr.domain.workload import Reason, State
from virtmgr.ports.clock import Clock
from virtmgr.ports.driver import Departure, Inspection, RuntimeState

LOOK_AGAIN = 60.0  # seconds between looks at a workload of which no news came
_NO_DEPARTURE = Departure(departed=False)

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What rounds are made with; a workload has one at a time."""

    book: Book
    runner: StepRunner
    outbox: Outbox
    timers: Timers
    guard: Guard
    departures: Departures | None
    clock: Clock
    boot_id: str
    begin: Callable[[Step, Entry], bool]
    """Notes that a step is done now; not where something else is desired meanwhile."""
    forgotten: Callable[[], None]
    """Called when nothing is left of a workload."""
    _departed: dict[str, Departure] = field(default_factory=dict)  # the last one of each workload

    def round(self, entry: Entry) -> bool:
        """Look, plan and act once; whether to do so again at once."""
        try:
            seen = self.runner.inspect(entry.desired)
        except VirtmgrError as error:
            self._failed(entry, None, error, None)
            return False
        now = self.clock.now()
        entry = self._note_stopped(entry, seen)
        what = plan(entry.desired, entry.memory, observation(seen), boot_id=self.boot_id, now=now)
        what = held_back(what, entry.desired, has_lease=self.guard.holds(), now=now)
        if not what.steps:
            self._settled(entry, seen, what)
            return False
        for step in what.steps:
            if not self.begin(step, entry):
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
        self.book.remember(entry, carried_out(entry.desired, entry.memory))
        return True

    def not_taken_in(self, workload: DesiredWorkload, error: StorageError) -> None:
        """Tell that what is desired could not be kept; the workload is what it was before."""
        known = self.book.entry(workload.id) or Entry(desired=workload)
        try:
            seen = self.runner.inspect(workload)
        except VirtmgrError as unseen:
            _log.warning("workload.not_seen", workload=workload.id, error=unseen.message)
            return
        state = state_after_failure(Step.PREPARE, observation(seen), final=True)
        known = replace(known, desired=workload)
        self._report(known, state, seen, reason=Reason.of(error), final=True)

    def _note_stopped(self, entry: Entry, seen: Inspection) -> Entry:
        """What the watchdog stopped is as after a boot: it did not end by itself."""
        workload = entry.desired
        if not (workload.spec.ha.enabled and self.guard.holds()):
            return entry
        if not self.guard.was_stopped(workload.id):
            return entry
        if seen.state not in (RuntimeState.RUNNING, RuntimeState.PAUSED):
            entry = self.book.remember(entry, replace(entry.memory, boot_id=""), needed=True)
        with suppress(HostError):  # the lease has ended meanwhile: note is taken once it is back
            self.guard.note_stopped(workload.id)
        return entry

    # ---- steps

    def _step(self, step: Step, entry: Entry, seen: Inspection, what: Plan) -> Entry:
        if step in (Step.DEPART, Step.SETTLE):
            return self._depart(step, entry, seen)
        during = STATE_DURING.get(step)
        if during is not None:
            self._report(entry, during, seen)
        if step is Step.START:
            memory = before_start(
                entry.desired, entry.memory, observation(seen), what, boot_id=self.boot_id
            )
            entry = self.book.remember(entry, memory, needed=True)
        tell = partial(self._tell, entry, during, seen)
        is_ha_start = step is Step.START and entry.desired.spec.ha.enabled
        with self.guard.starting() if is_ha_start else nullcontext():
            waiting = self.runner.run(step, entry, tell)
        if step is Step.FORGET:
            self._forget(entry)
            return entry
        kept = after_step(step, entry.desired, entry.memory, waiting)
        once = step in (Step.CLONE, Step.ARRIVE)  # never again, whatever happens to the host
        return self.book.remember(entry, kept, needed=once, durable=once)

    def _as_left_by(self, step: Step, entry: Entry) -> Entry:
        """The entry after a step that failed: a departure that was begun is not begun again."""
        if step is not Step.DEPART:
            return entry
        current = self.book.entry(entry.desired.id) or entry
        return replace(entry, memory=current.memory)

    def _forget(self, entry: Entry) -> None:
        self._departed.pop(entry.desired.id, None)
        if self.departures is not None and entry.memory.received:
            self.departures.close_passage(entry.memory.received)
        self.book.forget(entry.desired.id)
        self.forgotten()
        self.outbox.put(gone(entry))

    # ---- leaving for another host

    def _depart(self, step: Step, entry: Entry, seen: Inspection) -> Entry:
        """Let it go to another host, or see how an earlier attempt ended; keep that, and tell.

        Only once it is on the disk that it has left may the target let it run.
        """
        workload, outgoing = entry.desired, entry.desired.outgoing
        if outgoing is None or self.departures is None:
            raise AssertionError("no departure is desired")
        driver = mover(self.runner.driver(workload), workload)
        if step is Step.DEPART:
            memory = replace(entry.memory, departing=outgoing.id)
            entry = self.book.remember(entry, memory, needed=True, durable=True)
            departure = self.departures.depart(
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
        entry = self.book.remember(entry, memory, needed=True, durable=True)
        if departure.departed:
            self._report(entry, State(workload.state.value), as_it_ran(seen))
            self.departures.hand_over(workload)
        return entry

    def _outgoing(self, workload_id: str) -> Outgoing | None:
        desired = self.book.desired(workload_id)
        return desired.outgoing if desired is not None else None

    def _on_way(self, entry: Entry, seen: Inspection, move: ObservedMove) -> None:
        state = State.PAUSED if seen.state is RuntimeState.PAUSED else State.RUNNING
        self._report(entry, state, seen, move=move)

    # ---- what is told

    def _settled(self, entry: Entry, seen: Inspection, what: Plan) -> None:
        state, reason = observed_state(entry.desired, observation(seen), what)
        if has_departed(entry.desired, entry.memory):
            state, reason, seen = State(entry.desired.state.value), None, as_it_ran(seen)
        if what.wait_until is not None:
            wait = (what.wait_until - self.clock.now()).total_seconds()
            self.timers.after(wait, entry.desired.id)
            if entry.memory.failures:
                return  # the failure stays reported until the next try
        else:
            self.timers.after(LOOK_AGAIN, entry.desired.id)
            if entry.memory.failures:
                entry = self.book.remember(entry, without_failures(entry.memory))
        self._report(entry, state, seen, reason=reason)
        for volume in entry.desired.volumes:
            self.outbox.put_volume(ObservedVolume(id=volume.id, ready=True))

    def _failed(
        self, entry: Entry, step: Step | None, error: VirtmgrError, seen: Inspection | None
    ) -> None:
        now = self.clock.now()
        memory = after_failure(entry.desired, entry.memory, now)
        final = has_failed_for_good(memory, error)
        _log.warning(
            "workload.step_failed",
            workload=entry.desired.id,
            step=step.value if step else "inspect",
            error=error.message,
            failures=memory.failures,
        )
        entry = self.book.remember(entry, memory)
        assert memory.retry_at is not None
        self.timers.after((memory.retry_at - now).total_seconds(), entry.desired.id)
        reason = in_names(Reason.of(error), entry.desired)
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
        self.outbox.put(
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
