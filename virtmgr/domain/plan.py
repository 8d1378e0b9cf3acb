"""Reconciling one workload: desired − observed = steps. Pure; the agent carries the steps out.

``plan`` is called whenever anything may have changed: what is desired, what is seen, or the time.
Carrying out its steps and asking again ends in no steps (convergence), and a workload that is as
desired yields none (idempotence); tests/domain/test_plan.py proves both.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.workload import PowerState, RestartPolicy

RESTART_DELAY_FIRST = 1.0  # seconds
RESTART_DELAY_MOST = 300.0
NO_LEASE = "it is highly available, and its host does not reach the control plane"
_LEASE_PAUSE = timedelta(seconds=1)  # between looks whether the lease is back
STEADY_AFTER = timedelta(seconds=60)  # having run so long forgets earlier restarts


class Seen(StrEnum):
    """What a driver sees of a workload; the same names as ``ports.driver.RuntimeState``."""

    ABSENT = "absent"
    PREPARED = "prepared"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


class Step(StrEnum):
    """One idempotent thing that the agent does for a workload."""

    PREPARE = "prepare"
    CLONE = "clone"  # prepare, with a copy of another workload's disks
    ARRIVE = "arrive"  # prepare, with what came from another host
    RECEIVE = "receive"  # make all that a workload needs which comes while it runs
    DEPART = "depart"  # let it go to another host while it runs
    SETTLE = "settle"  # find out how its departure ended
    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    UPDATE = "update"
    DESTROY = "destroy"
    FORGET = "forget"  # nothing is left on the host: drop what is remembered


@dataclass(frozen=True)
class Memory:
    """What a host remembers of a workload beyond what its driver can see."""

    applied_generation: int = 0  # last generation that was carried out
    restart_nonce: int = 0  # last requested restart that was carried out
    started: bool = False  # it was started since it was last asked to be stopped
    starting: bool = False  # a start was begun, and how it ended is not known yet
    previous_start: datetime | None = None  # when the run before that start began
    boot_id: str = ""  # host boot during which it was last started
    restarts: int = 0  # by policy, since the last requested start
    failures: int = 0  # of steps, in a row
    failed_generation: int = 0  # the one whose steps failed
    retry_at: datetime | None = None  # no step for that generation before this time
    needs_restart: tuple[str, ...] = ()  # changed fields that wait for the next start
    cloned: bool = False  # it has its copy of the workload that it is a clone of
    arrived: str = ""  # the last arrival that it has taken up
    received: str = ""  # the last live migration to here that all is made for
    departing: str = ""  # the last one from here that was begun,
    departed: str = ""  # that ended with the workload gone,
    stayed: str = ""  # or that ended with the workload here


@dataclass(frozen=True)
class Observation:
    """What the driver saw just now."""

    state: Seen
    exit_code: int | None = None
    oom_killed: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class Plan:
    """Steps in order; or none, and when to ask again, and why."""

    steps: tuple[Step, ...] = ()
    wait_until: datetime | None = None
    reason: str = ""
    by_policy: bool = False  # the start counts as a restart


CONVERGED = Plan()


def restart_delay(restarts: int) -> float:
    """Seconds before restart number ``restarts`` + 1: doubles from 1 s to 5 min."""
    return float(min(RESTART_DELAY_MOST, RESTART_DELAY_FIRST * 2 ** min(restarts, 16)))


def failure_delay(failures: int) -> float:
    """Seconds before a failed step is tried again, after ``failures`` in a row."""
    return float(min(60.0, 0.5 * 2 ** min(failures, 16)))


def plan(
    desired: DesiredWorkload, memory: Memory, seen: Observation, *, boot_id: str, now: datetime
) -> Plan:
    """The steps that bring the workload to what is desired, or when to look again."""
    if desired.deleting:
        return Plan((Step.FORGET,)) if seen.state is Seen.ABSENT else Plan((Step.DESTROY,))
    wanted = _between_hosts(desired, memory, seen)
    if wanted is None:
        wanted = _power(desired, memory, seen, boot_id=boot_id, now=now)
    if not wanted.steps:
        return wanted
    tried = desired.generation == memory.failed_generation
    if memory.retry_at is not None and memory.retry_at > now and tried:
        return Plan(wait_until=memory.retry_at, reason="waiting before the next try")
    return wanted


def held_back(what: Plan, desired: DesiredWorkload, *, has_lease: bool, now: datetime) -> Plan:
    """The same, but no start of a highly available workload while its host has no lease."""
    if has_lease or not desired.spec.ha.enabled or Step.START not in what.steps:
        return what
    return Plan(wait_until=now + _LEASE_PAUSE, reason=NO_LEASE)


def _between_hosts(desired: DesiredWorkload, memory: Memory, seen: Observation) -> Plan | None:
    """While it is on its way live, it is neither started, stopped nor changed by either host.

    None: it is not, or not any more: what was to go and stayed is this host's as before, which
    lets it run on, whoever let it stand still for the migration. A departure is begun once: one
    that was begun and whose end is not known is settled.
    """
    incoming, outgoing = desired.incoming, desired.outgoing
    if incoming is not None:
        made = incoming.id in (memory.received, memory.arrived)
        return CONVERGED if made else Plan((Step.RECEIVE,))
    if outgoing is None or outgoing.id == memory.stayed:
        return None
    if outgoing.id == memory.departed:
        return CONVERGED
    alive = seen.state in (Seen.RUNNING, Seen.PAUSED)
    begun = outgoing.id == memory.departing
    return Plan((Step.DEPART if alive and not begun and not outgoing.cancelled else Step.SETTLE,))


def _power(
    desired: DesiredWorkload, memory: Memory, seen: Observation, *, boot_id: str, now: datetime
) -> Plan:
    alive = seen.state in (Seen.RUNNING, Seen.PAUSED)
    stale = desired.generation != memory.applied_generation
    update = (Step.UPDATE,) if stale else ()
    unmade = _unmade(desired, memory, seen)
    if unmade is not None:
        if desired.state is PowerState.STOPPED:
            return Plan((unmade,))
        return Plan((unmade, *_bring_up(desired)))
    if desired.state is PowerState.STOPPED:
        return Plan((Step.STOP, *update)) if alive else Plan(update)
    if desired.restart_nonce != memory.restart_nonce:
        return Plan((*((Step.STOP,) if alive else ()), *update, *_bring_up(desired)))
    if alive:
        return Plan((*update, *_adjust(desired.state, seen.state)))
    lost = memory.boot_id != boot_id or seen.state is Seen.PREPARED
    if lost or not was_started(memory, seen):
        return Plan((*update, *_bring_up(desired)))
    return _after_exit(desired, memory, seen, update, now)


def _unmade(desired: DesiredWorkload, memory: Memory, seen: Observation) -> Step | None:
    """The step that makes it, unless it is made. Half a clone looks prepared and is not; nor is
    what has half arrived."""
    never_ran = seen.state in (Seen.ABSENT, Seen.PREPARED)
    if desired.clone_of is not None and not memory.cloned and never_ran:
        return Step.CLONE
    arrival = desired.arrival
    if arrival is not None and memory.arrived != arrival.id and never_ran:
        return Step.ARRIVE
    return Step.PREPARE if seen.state is Seen.ABSENT else None


def _bring_up(desired: DesiredWorkload) -> tuple[Step, ...]:
    return (Step.START, Step.PAUSE) if desired.state is PowerState.PAUSED else (Step.START,)


def _adjust(wanted: PowerState, seen: Seen) -> tuple[Step, ...]:
    if wanted is PowerState.PAUSED and seen is Seen.RUNNING:
        return (Step.PAUSE,)
    if wanted is PowerState.RUNNING and seen is Seen.PAUSED:
        return (Step.RESUME,)
    return ()


def _after_exit(
    desired: DesiredWorkload,
    memory: Memory,
    seen: Observation,
    update: tuple[Step, ...],
    now: datetime,
) -> Plan:
    """It ended by itself: the restart policy decides, with a delay that doubles."""
    policy = desired.spec.restart
    failed = seen.exit_code is None or seen.exit_code != 0
    if policy is RestartPolicy.NEVER or (policy is RestartPolicy.ON_FAILURE and not failed):
        return Plan(update)
    due = (seen.finished_at or now) + timedelta(
        seconds=restart_delay(restarts_that_count(memory, seen))
    )
    if due > now:
        return Plan(update, wait_until=due, reason="it ended and is restarted by its policy")
    return Plan((*update, *_bring_up(desired)), by_policy=True)


def was_started(memory: Memory, seen: Observation) -> bool:
    """Whether the last start that was asked for happened.

    A crash may have come between the start and the note of it: then what ran since says so.
    """
    if memory.started or not memory.starting:
        return memory.started
    return seen.started_at is not None and seen.started_at != memory.previous_start


def restarts_that_count(memory: Memory, seen: Observation) -> int:
    """Restarts so far, or 0 where the last run was long enough to forget them."""
    if (
        seen.started_at is not None
        and seen.finished_at is not None
        and seen.finished_at - seen.started_at >= STEADY_AFTER
    ):
        return 0
    return memory.restarts
