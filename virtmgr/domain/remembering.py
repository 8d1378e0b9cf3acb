"""What a host remembers of a workload before and after each step. Pure.

Memory is written around a step, never with it: whatever falls between is found out from what is
seen (``plan.was_started``), so that a crash neither loses a start nor does one twice.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from virtmgr.domain.errors import ImageError, Unsupported, VirtmgrError
from virtmgr.domain.plan import (
    Memory,
    Observation,
    Plan,
    Step,
    failure_delay,
    restarts_that_count,
)
from virtmgr.domain.sync import DesiredWorkload, ObservedMove
from virtmgr.domain.workload import PowerState, Reason

_TRIES_BEFORE_FAILED = 3


def before_start(
    desired: DesiredWorkload, memory: Memory, seen: Observation, plan: Plan, *, boot_id: str
) -> Memory:
    """To be kept before a start, so that a crash after it does not start it once more.

    :param seen: what the plan was made from.
    """
    return replace(
        memory,
        restart_nonce=desired.restart_nonce,
        boot_id=boot_id,
        restarts=restarts_that_count(memory, seen) + 1 if plan.by_policy else 0,
        started=plan.by_policy,  # a policy decides again; a request has to be carried out
        starting=True,
        previous_start=seen.started_at,
    )


def after_step(
    step: Step, desired: DesiredWorkload, memory: Memory, waiting: tuple[str, ...] = ()
) -> Memory:
    """To be kept once ``step`` was carried out.

    :param waiting: of an update: the changed fields that wait for the next start.
    """
    if step is Step.START:
        return replace(memory, started=True, starting=False, needs_restart=())
    if step is Step.STOP:
        return replace(memory, started=False, starting=False)
    if step is Step.UPDATE:
        return replace(memory, needs_restart=waiting)
    if step is Step.CLONE:
        return replace(memory, cloned=True)
    if step is Step.RECEIVE and desired.incoming is not None:
        return replace(memory, received=desired.incoming.id)
    if step is Step.ARRIVE and desired.arrival is not None:
        return replace(memory, arrived=desired.arrival.id)
    return memory


def arrived_live(memory: Memory, migration_id: str, *, boot_id: str) -> Memory:
    """To be kept once a workload runs here that came while it ran."""
    return replace(memory, arrived=migration_id, boot_id=boot_id, started=True, starting=False)


def after_departure(memory: Memory, migration_id: str, *, departed: bool) -> Memory:
    """To be kept once it is known how a departure ended; that is never taken back."""
    if departed:
        return replace(memory, departed=migration_id, started=False, starting=False)
    return replace(memory, stayed=migration_id)


def observed_move(
    desired: DesiredWorkload, memory: Memory, reason: Reason | None = None, copied: int = 0
) -> ObservedMove | None:
    """What is to be said of a live migration; None where there is none.

    :param reason: why it stayed.
    :param copied: bytes that have gone.
    """
    if desired.incoming is not None:
        id = desired.incoming.id
        arrived = memory.arrived == id
        return ObservedMove(id=id, ready=memory.received == id, arrived=arrived)
    if desired.outgoing is None:
        return None
    id = desired.outgoing.id
    stayed = memory.stayed == id
    return ObservedMove(
        id=id,
        departed=memory.departed == id,
        stayed=stayed,
        reason=reason if stayed else None,
        copied=copied,
    )


def has_departed(desired: DesiredWorkload, memory: Memory) -> bool:
    """Whether the workload runs elsewhere by now, and this host may only say so."""
    return desired.outgoing is not None and memory.departed == desired.outgoing.id


def after_failure(desired: DesiredWorkload, memory: Memory, now: datetime) -> Memory:
    """To be kept once a step has failed: it is tried again at ``retry_at``."""
    failures = memory.failures + 1
    return replace(
        memory,
        failures=failures,
        failed_generation=desired.generation,
        retry_at=now + timedelta(seconds=failure_delay(failures)),
    )


def has_failed_for_good(memory: Memory, error: VirtmgrError) -> bool:
    """Whether a failed step is told as the end of it; it is tried again all the same."""
    return memory.failures >= _TRIES_BEFORE_FAILED or isinstance(error, ImageError | Unsupported)


def without_failures(memory: Memory) -> Memory:
    """To be kept once there is nothing left to do."""
    return replace(memory, failures=0, retry_at=None)


def carried_out(desired: DesiredWorkload, memory: Memory) -> Memory:
    """To be kept once all steps of a plan were carried out."""
    return replace(
        memory,
        applied_generation=desired.generation,
        restart_nonce=desired.restart_nonce,
        started=desired.state is not PowerState.STOPPED,
        starting=False,
        failures=0,
        retry_at=None,
    )
