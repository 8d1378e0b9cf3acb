"""What can be done about an operation: cancel it while it goes on, try it again where it failed.

One rule for all kinds, by what an operation is and how it is. That the thing itself stands against
it (a workload is its new host's already) shows only when it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from virtmgr.domain.access import Action
from virtmgr.domain.operation import UNFINISHED, Operation, OperationState
from virtmgr.domain.workload import Reason

Sort = tuple[str, str]
"""The type of an operation's target, and its verb."""

POWER: Final = ("start", "stop", "restart", "pause", "resume")
BY_SSH: Final = ("enroll", "reinstall", "renew_certificates", "upgrade")
FENCING: Final = ("fence", "fence_test")
CANCELLABLE: Final[Mapping[Sort, Action]] = {
    ("workload", "move"): Action.WORKLOADS_MOVE,
    ("host", "drain"): Action.HOSTS_UPDATE,
    ("cluster", "rebalance"): Action.CLUSTERS_REBALANCE,
    **{("image", verb): Action.IMAGES_DELETE for verb in ("import", "build", "publish")},
}
"""What can be cancelled, and what it takes to do so."""

RETRYABLE: Final[Mapping[Sort, Action]] = {
    **{("workload", verb): Action.WORKLOADS_POWER for verb in POWER},
    ("workload", "move"): Action.WORKLOADS_MOVE,
    ("workload", "delete"): Action.WORKLOADS_DELETE,
    ("host", "drain"): Action.HOSTS_UPDATE,
    **{("host", verb): Action.HOSTS_CREATE for verb in BY_SSH},
    **{("host", verb): Action.HOSTS_UPDATE for verb in FENCING},
    ("cluster", "rebalance"): Action.CLUSTERS_REBALANCE,
    **{("image", verb): Action.IMAGES_CREATE for verb in ("import", "build")},
}
"""What can be tried again, and what it takes to do so."""

_LOST: Final[Mapping[str, str]] = {
    "upload": "the file that was uploaded for it is gone",
    "credentials": "the registry's password was used once and forgotten",
}


def cancel_refusal(operation: Operation) -> Reason | None:
    """Why the operation cannot be cancelled; None: it can."""
    if operation.state not in UNFINISHED:
        return Reason(code="has_ended", message=f"it has {_ended(operation.state)} already")
    if _sort(operation) in CANCELLABLE:
        return None
    if operation.target_type == "workload":
        return Reason(
            code="not_cancellable",
            message="what is asked of a workload is written down, and its host is at work on it",
            hint="ask for something else: stop it, start it or delete it",
        )
    if operation.verb in BY_SSH:
        return Reason(
            code="not_cancellable",
            message="what is done to a host by ssh is not broken off half-way",
            hint="wait until it ends; it changes nothing that is right",
        )
    if operation.verb in FENCING:
        return Reason(
            code="not_cancellable",
            message="a fence device cannot be told to forget what it was told",
        )
    return Reason(code="not_cancellable", message="it cannot be taken back once it has begun")


def retry_refusal(operation: Operation) -> Reason | None:
    """Why the operation cannot be tried again as it was asked; None: it can."""
    if operation.state in UNFINISHED:
        return Reason(code="goes_on", message="it goes on", hint="wait for its end")
    if operation.state is OperationState.SUCCEEDED:
        return Reason(code="has_succeeded", message="it has succeeded: nothing is left to do")
    if _sort(operation) == ("workload", "create") or operation.verb == "clone":
        return Reason(
            code="tried_by_itself",
            message="it is tried again by itself until the workload is deleted",
            hint="see what it lacks, or delete it",
        )
    if _sort(operation) not in RETRYABLE:
        return Reason(
            code="not_retryable",
            message="not all that it was asked with is kept",
            hint="ask for it anew",
        )
    if operation.target_type == "image":
        return _of_image(operation)
    return None


def _of_image(operation: Operation) -> Reason | None:
    if operation.state is OperationState.CANCELLED:
        return Reason(
            code="not_retryable",
            message="it was cancelled, and the image is gone with all that it was asked with",
            hint="ask for it anew",
        )
    for name, message in _LOST.items():
        if operation.parameters.get(name):
            return Reason(code="not_retryable", message=message, hint="ask for it anew")
    return None


def _sort(operation: Operation) -> Sort:
    return operation.target_type, operation.verb


def _ended(state: OperationState) -> str:
    return {OperationState.CANCELLED: "been cancelled"}.get(state, state.value)
