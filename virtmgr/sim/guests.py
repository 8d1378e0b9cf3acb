"""The workloads of one simulated host: what is planned is carried out by the fake driver, in time.

It does what ``agent/rounds.py`` does, with one difference: a step's time passes without a
thread. ``advance`` is to be called when ``due`` has come.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count

from virtmgr.agent.files import Entry
from virtmgr.agent.outbox import Outbox
from virtmgr.agent.telling import gone, observation, observed
from virtmgr.domain.errors import DriverError, Unsupported, VirtmgrError
from virtmgr.domain.observing import STATE_DURING, observed_state, state_after_failure
from virtmgr.domain.plan import Memory, Plan, Step, plan
from virtmgr.domain.remembering import (
    after_failure,
    after_step,
    before_start,
    carried_out,
    has_failed_for_good,
    without_failures,
)
from virtmgr.domain.sync import DesiredWorkload, ObservedVolume, SyncResponse
from virtmgr.domain.workload import Reason, State, Usage
from virtmgr.drivers.fake.driver import FakeDriver
from virtmgr.drivers.fake.world import FakeWorld
from virtmgr.ports.driver import Departure, Feature, Inspection, Provision, RuntimeState
from virtmgr.sim.behaviour import Behaviour

_NOTHING = Provision()
_STAYED = Departure(departed=False)
_LIVE = (RuntimeState.RUNNING, RuntimeState.PAUSED)
_FEATURES = (
    Feature.PAUSE,
    Feature.CLONE,
    Feature.RESIZE_VCPUS_LIVE,
    Feature.SHRINK_VCPUS_LIVE,
    Feature.RESIZE_MEMORY_LIVE,
    Feature.ATTACH_VOLUME_LIVE,
    Feature.ATTACH_NIC_LIVE,
)
"""What needs no stream: a simulated host cannot be dialled."""


@dataclass(frozen=True)
class _Job:
    """A plan that is being carried out; ``done`` of its steps are."""

    desired: DesiredWorkload
    what: Plan
    seen: Inspection
    done: int = 0

    @property
    def step(self) -> Step:
        return self.what.steps[self.done]


class Guests:
    """One host's. Not safe in threads."""

    def __init__(self, host: str, behaviour: Behaviour, outbox: Outbox) -> None:
        self.driver = FakeDriver(FakeWorld(keep_calls=False), features=_FEATURES)
        self.images: set[str] = set()  # ids of those at hand
        self._host = host
        self._behaviour = behaviour
        self._outbox = outbox
        self._boot_id = ""
        self._entries: dict[str, Entry] = {}
        self._jobs: dict[str, _Job] = {}
        self._highly_available: set[str] = set()
        self._attempts: dict[str, int] = {}
        self._timers: list[tuple[datetime, int, str, str]] = []  # when, order, what, workload
        self._order = count()

    # -- from outside ------------------------------------------------------------------------

    @property
    def due(self) -> datetime | None:
        """When ``advance`` is to be called; None: until something is taken in, never."""
        return self._timers[0][0] if self._timers else None

    def boot(self, boot_id: str, now: datetime) -> None:
        """The host comes up; what ran before it went down does not."""
        self._boot_id = boot_id
        self._jobs.clear()
        self._timers.clear()
        self.driver.world.reboot()
        for workload_id in list(self._entries):
            self._look(workload_id, now)

    def take_in(self, response: SyncResponse, now: datetime) -> None:
        """What is desired now."""
        for workload in response.workloads:
            self._wish(workload, now)
        if response.full:
            keep = {workload.id for workload in response.workloads}
            for entry in [one for id, one in self._entries.items() if id not in keep]:
                self._wish(entry.desired.model_copy(update={"deleting": True}), now)
        for volume in response.removed_volumes:
            self._outbox.put_volume(ObservedVolume(id=volume, ready=False, gone=True))
        self.images.difference_update(response.removed_images)

    def advance(self, now: datetime) -> None:
        """Let happen what is due."""
        while self._timers and self._timers[0][0] <= now:
            _, _, what, workload_id = heapq.heappop(self._timers)
            if what == "step":
                self._finish(workload_id, now)
            elif what == "end":
                self._end(workload_id, now)
            else:
                self._look(workload_id, now)

    def usage(self, now: datetime) -> dict[str, Usage]:
        """What each that runs uses."""
        found = {}
        for id, guest in self.driver.world.guests().items():
            entry = self._entries.get(id)
            if guest.state in _LIVE and guest.started_at is not None and entry is not None:
                since = datetime.fromisoformat(guest.started_at)
                found[id] = self._behaviour.usage(entry.desired, since, now)
        return found

    def running(self) -> int:
        return sum(guest.state in _LIVE for guest in self.driver.world.guests().values())

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def highly_available(self) -> bool:
        """Whether any of them ends with the host's lease."""
        return bool(self._highly_available)

    def lease_lost(self, now: datetime) -> None:
        """End what is highly available: it may be started elsewhere from now on."""
        for id, entry in self._entries.items():
            guest = self.driver.world.guest(id)
            if entry.desired.spec.ha.enabled and guest is not None and guest.state in _LIVE:
                self.driver.stop(id, timeout=0, force=True)
                self._entries[id] = replace(entry, memory=replace(entry.memory, boot_id=""))
                self._after(now, 1.0, "look", id)

    # -- one workload ------------------------------------------------------------------------

    def _wish(self, workload: DesiredWorkload, now: datetime) -> None:
        known = self._entries.get(workload.id)
        if known is not None and known.desired == workload:
            return
        if workload.spec.ha.enabled:
            self._highly_available.add(workload.id)
        else:
            self._highly_available.discard(workload.id)
        memory = known.memory if known is not None else Memory()
        self._entries[workload.id] = Entry(workload, memory)
        self._look(workload.id, now)

    def _look(self, workload_id: str, now: datetime) -> None:
        """See what is to be done, and begin it, unless something is being done."""
        entry = self._entries.get(workload_id)
        if entry is None or workload_id in self._jobs:
            return
        seen = self.driver.inspect(workload_id)
        what = plan(entry.desired, entry.memory, observation(seen), boot_id=self._boot_id, now=now)
        if what.steps:
            self._begin(_Job(entry.desired, what, seen), now)
        else:
            self._settled(entry, seen, what, now)

    def _begin(self, job: _Job, now: datetime) -> None:
        entry = self._entries[job.desired.id]
        during = STATE_DURING.get(job.step)
        if during is not None:
            self._report(entry, during, job.seen)
        if job.step is Step.START:
            memory = before_start(
                entry.desired, entry.memory, observation(job.seen), job.what, boot_id=self._boot_id
            )
            self._entries[job.desired.id] = replace(entry, memory=memory)
        self._jobs[job.desired.id] = job
        self._after(now, self._seconds(job), "step", job.desired.id)

    def _seconds(self, job: _Job) -> float:
        workload = job.desired
        attempt = self._attempts[workload.id] = self._attempts.get(workload.id, 0) + 1
        seconds = self._behaviour.seconds(job.step, workload, attempt)
        image = workload.image
        if job.step is Step.PREPARE and image is not None and image.id not in self.images:
            seconds += self._behaviour.fetch_seconds(self._host, image.id)
        return seconds

    def _finish(self, workload_id: str, now: datetime) -> None:
        """A step's time is over: it is done, or has failed."""
        job = self._jobs.pop(workload_id, None)
        entry = self._entries.get(workload_id)
        if job is None or entry is None:
            return
        try:
            waiting = self._carry_out(job)
        except VirtmgrError as error:
            self._failed(entry, job, error, now)
            return
        if job.step is Step.FORGET:
            self._forget(entry)
            return
        memory = after_step(job.step, job.desired, entry.memory, waiting)
        entry = self._entries[workload_id] = replace(entry, memory=memory)
        if job.step is Step.START:
            self._let_live(workload_id, now)
        last = job.done + 1 == len(job.what.steps)
        if entry.desired == job.desired and not last:
            self._begin(replace(job, done=job.done + 1), now)
            return
        if last:
            memory = carried_out(job.desired, entry.memory)
            self._entries[workload_id] = replace(entry, memory=memory)
        self._look(workload_id, now)

    def _carry_out(self, job: _Job) -> tuple[str, ...]:
        """Let the driver do it; the changed fields that wait for the next start.

        :raises HostError: it failed.
        """
        workload, step = job.desired, job.step
        if self._behaviour.fails(step, workload, self._attempts.get(workload.id, 0)):
            raise DriverError(
                f"cannot {step} workload {workload.name!r}: the simulation lets it fail",
                code="simulated_failure",
                hint="this host is simulated; see the option --failing of 'virtmgr sim run'",
            )
        match step:
            case Step.PREPARE:
                self.driver.prepare(workload, _NOTHING)
                if workload.image is not None:
                    self.images.add(workload.image.id)
            case Step.CLONE if workload.clone_of is not None:
                self.driver.clone(workload.clone_of.id, workload, _NOTHING)
            case Step.START:
                self.driver.start(workload, _NOTHING)
            case Step.STOP:
                self.driver.stop(workload.id, timeout=0, force=workload.force_stop)
            case Step.PAUSE:
                self.driver.pause(workload.id)
            case Step.RESUME:
                self.driver.resume(workload.id)
            case Step.UPDATE:
                return self.driver.update(workload, _NOTHING).needs_restart
            case Step.DESTROY:
                self.driver.destroy(workload.id)
            case Step.FORGET:
                pass
            case _:
                raise Unsupported(
                    f"cannot {step} workload {workload.name!r}: this host is simulated, and "
                    "nothing can be sent to it or from it",
                    hint="move workloads between hosts that are real",
                )
        return ()

    def _let_live(self, workload_id: str, now: datetime) -> None:
        life = self._behaviour.life(workload_id, self._attempts.get(workload_id, 0))
        if life is not None:
            self._after(now, life, "end", workload_id)

    def _end(self, workload_id: str, now: datetime) -> None:
        """A guest ends by itself, if it is still there."""
        guest = self.driver.world.guest(workload_id)
        if guest is not None and guest.state in _LIVE:
            self.driver.world.end(workload_id, exit_code=1)
            self._look(workload_id, now)

    def _forget(self, entry: Entry) -> None:
        self._entries.pop(entry.desired.id, None)
        self._attempts.pop(entry.desired.id, None)
        self._highly_available.discard(entry.desired.id)
        self._outbox.put(gone(entry))

    # -- what is told ------------------------------------------------------------------------

    def _settled(self, entry: Entry, seen: Inspection, what: Plan, now: datetime) -> None:
        state, reason = observed_state(entry.desired, observation(seen), what)
        if what.wait_until is not None:
            wait = (what.wait_until - now).total_seconds()
            self._after(now, max(wait, 0.001), "look", entry.desired.id)
            if entry.memory.failures:
                return  # the failure stays reported until the next try
        elif entry.memory.failures:
            memory = without_failures(entry.memory)
            entry = self._entries[entry.desired.id] = replace(entry, memory=memory)
        self._report(entry, state, seen, reason=reason)
        for volume in entry.desired.volumes:
            self._outbox.put_volume(ObservedVolume(id=volume.id, ready=True))

    def _failed(self, entry: Entry, job: _Job, error: VirtmgrError, now: datetime) -> None:
        memory = after_failure(entry.desired, entry.memory, now)
        final = has_failed_for_good(memory, error)
        entry = self._entries[entry.desired.id] = replace(entry, memory=memory)
        assert memory.retry_at is not None
        self._after(now, (memory.retry_at - now).total_seconds(), "look", entry.desired.id)
        reason = Reason.of(error)
        state = state_after_failure(job.step, observation(job.seen), final=final)
        self._report(entry, state, job.seen, reason=reason, final=final)

    def _report(
        self,
        entry: Entry,
        state: State,
        seen: Inspection,
        *,
        reason: Reason | None = None,
        final: bool = False,
    ) -> None:
        told = observed(entry, state, seen, last=_STAYED, reason=reason, final=final)
        self._outbox.put(told)

    def _after(self, now: datetime, seconds: float, what: str, workload_id: str) -> None:
        when = now + timedelta(seconds=seconds)
        heapq.heappush(self._timers, (when, next(self._order), what, workload_id))


def total(guests: Iterable[Guests]) -> tuple[int, int]:
    """How many workloads there are, and how many of them run."""
    some = list(guests)
    return sum(map(len, some)), sum(one.running() for one in some)
