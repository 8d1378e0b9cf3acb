"""When an operation on a workload is finished, and how: a pure function of what was observed."""

from __future__ import annotations

from dataclasses import dataclass

from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.workload import Reason, State, WorkloadStatus

ENDED_BY_ITSELF = frozenset({"exited", "restarting"})
"""Reasons of a state that say how a workload ended, not that a step of ours failed."""

_MUST_RUN = frozenset({"create", "clone", "start", "restart", "resume", "pause"})
_PROGRESS = {
    State.PENDING: 0.05,
    State.PREPARING: 0.2,
    State.STARTING: 0.7,
    State.STOPPING: 0.5,
    State.DELETING: 0.5,
}


@dataclass(frozen=True)
class Outcome:
    """Where an operation stands. ``reason`` is set where it failed."""

    state: OperationState
    progress: float
    message: str = ""
    reason: Reason | None = None


def outcome(
    operation: Operation, status: WorkloadStatus, *, observed_generation: int, gone: bool
) -> Outcome:
    """Where ``operation`` stands after its workload was observed.

    A delete is done when nothing is left; everything else when its generation has been acted on.
    """
    if gone:
        done = operation.verb == "delete"
        return Outcome(
            OperationState.SUCCEEDED if done else OperationState.CANCELLED,
            1.0,
            "" if done else "the workload was deleted meanwhile",
        )
    if operation.verb == "delete" or observed_generation < operation.generation:
        progress = max(operation.progress, _PROGRESS.get(status.state, 0.1))
        why = status.reason.message if status.reason else None
        return Outcome(
            OperationState.RUNNING, progress, status.progress or why or status.state.value
        )
    if status.reason is not None and _fails(operation, status.reason, status.state):
        return Outcome(OperationState.FAILED, 1.0, status.reason.message, status.reason)
    message = ""
    if status.needs_restart:
        message = "takes effect at the next restart: " + ", ".join(status.needs_restart)
    return Outcome(OperationState.SUCCEEDED, 1.0, message)


def _fails(operation: Operation, reason: Reason, state: State) -> bool:
    """Whether the reason of a state is that the operation's own steps failed."""
    if reason.code in ENDED_BY_ITSELF:
        return operation.verb in _MUST_RUN and state is State.FAILED
    return True
