"""Cancelling operations and trying them again: which service does it, and who may ask for it.

``virtmgr.domain.operation_verbs`` says for which operations; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from virtmgr.domain.access import Action
from virtmgr.domain.errors import Conflict, IllegalTransition, NotFound
from virtmgr.domain.live_migration import Wish
from virtmgr.domain.operation import Operation
from virtmgr.domain.operation_verbs import (
    BY_SSH,
    CANCELLABLE,
    FENCING,
    POWER,
    RETRYABLE,
    Sort,
    cancel_refusal,
    retry_refusal,
)
from virtmgr.domain.rebalancing.running import Course
from virtmgr.domain.workload import Reason, Workload
from virtmgr.services import (
    drains,
    fencing,
    host_installation,
    images,
    migrations,
    operations,
    rebalancing,
    workloads,
)
from virtmgr.services.context import Context
from virtmgr.services.host_installation import HostAgain
from virtmgr.services.images import ImageBuild, ImageImport

Cancel = Callable[[Context, Operation], object]
Retry = Callable[[Context, Operation], Operation]


def cancel(context: Context, reference: str) -> Operation:
    """End an operation that goes on, as far as that can still be done. Twice is once.

    :raises NotFound: there is none.
    :raises Forbidden: the role is too small for what it is about.
    :raises IllegalTransition: it cannot be cancelled, or not any more.
    """
    operation = operations.find(context, reference)
    _refuse(operation, "cancel", cancel_refusal(operation))
    sort = operation.target_type, operation.verb
    context.require(CANCELLABLE[sort], operation.project_id, f"operation {reference!r}")
    CANCELS[sort](_about(context, operation), operation)
    return operation


def retry(context: Context, reference: str) -> Operation:
    """Ask once more for what failed, as it was asked: a new operation.

    :raises NotFound: there is none, or what it was about is gone.
    :raises Forbidden: the role is too small for what it is about.
    :raises IllegalTransition: it has not failed, or cannot be asked for again like this.
    :raises placement.Overtaken: another placement was faster; try again in a new unit.
    """
    operation = operations.find(context, reference)
    _refuse(operation, "retry", retry_refusal(operation))
    sort = operation.target_type, operation.verb
    context.require(RETRYABLE[sort], operation.project_id, f"operation {reference!r}")
    return RETRIES[sort](_about(context, operation), operation)


def cannot_cancel(context: Context, operation: Operation) -> Reason | None:
    """Why whoever asks cannot cancel the operation."""
    why = cancel_refusal(operation)
    return why if why is not None else _too_small(context, operation, CANCELLABLE)


def cannot_retry(context: Context, operation: Operation) -> Reason | None:
    """Why whoever asks cannot try the operation again."""
    why = retry_refusal(operation)
    return why if why is not None else _too_small(context, operation, RETRYABLE)


def _too_small(
    context: Context, operation: Operation, taking: Mapping[Sort, Action]
) -> Reason | None:
    if context.allows(taking[operation.target_type, operation.verb], operation.project_id):
        return None
    return Reason(code="forbidden", message="your role is too small for it")


def _refuse(operation: Operation, verb: str, why: Reason | None) -> None:
    if why is not None:
        raise IllegalTransition(
            f"cannot {verb} operation {operation.id}, {operation.verb} of {operation.target_type} "
            f"{operation.target_name!r}: {why.message}",
            code=why.code,
            hint=why.hint,
        )


def _about(context: Context, operation: Operation) -> Context:
    """The context in the operation's own project."""
    if operation.project_id is None:
        return context
    project = context.uow.projects.get(operation.project_id)
    return replace(context, project=project)


def _cancel_move(context: Context, operation: Operation) -> None:
    migration = context.uow.migrations.open_of(operation.target_id)
    if migration is None or migration.operation_id != operation.id:
        raise Conflict(f"the move of workload {operation.target_name!r} has ended meanwhile")
    migrations.cancel(context, migration.id)


def _power(context: Context, operation: Operation) -> Operation:
    workload = _workload(context, operation)
    force = bool(operation.parameters.get("force", False))
    return workloads.set_power(context, workload, operation.verb, force=force).operation


def _delete(context: Context, operation: Operation) -> Operation:
    return workloads.delete(context, _workload(context, operation)).operation


def _move(context: Context, operation: Operation) -> Operation:
    workload = _workload(context, operation, every_host=True)
    to = operation.parameters.get("to")
    return migrations.move(context, workload, to, _wish(operation, Wish.LIVE_IF_VM)).operation


def _wish(operation: Operation, usual: Wish) -> Wish:
    """As it was asked, as far as that is kept: what went cold may go so again."""
    mode = operation.parameters.get("mode")
    return Wish(mode) if mode is not None else usual


def _workload(context: Context, operation: Operation, *, every_host: bool = False) -> Workload:
    return workloads.lock(context, operation.target_id, every_host=every_host)


def _drain(context: Context, operation: Operation) -> Operation:
    return drains.drain(context, operation.target_id, _wish(operation, Wish.EITHER)).operation


def _by_ssh(context: Context, operation: Operation) -> Operation:
    return host_installation.again(context, operation.target_id, operation.verb, HostAgain())


def _fence(context: Context, operation: Operation) -> Operation:
    return fencing.begin(context, operation.target_id, operation.verb)


def _rebalance(context: Context, operation: Operation) -> Operation:
    course = Course.model_validate(operation.parameters)
    bounds = rebalancing.Bounds(
        most_moves=course.most_moves, at_once=course.at_once, cold=course.cold
    )
    return rebalancing.rebalance(context, operation.target_id, bounds).operation


def _image(context: Context, operation: Operation) -> Operation:
    image = context.uow.images.get(operation.target_id)
    if image is None:
        raise NotFound(
            f"image {operation.target_name!r}, which was not made, has been removed meanwhile",
            hint="ask for it anew",
        )
    kept = {key: value for key, value in operation.parameters.items() if key != "type"}
    asked = {**kept, "name": image.name, "aliases": tuple(image.aliases), "labels": image.labels}
    if operation.verb == "build":
        return images.begin_build(context, ImageBuild.model_validate(asked))
    return images.begin_import(context, ImageImport.model_validate(asked))


def _cancel_image(context: Context, operation: Operation) -> None:
    images.delete(context, operation.target_id)


def _cancel_drain(context: Context, operation: Operation) -> None:
    drains.cancel(context, operation.target_id)


def _cancel_rebalancing(context: Context, operation: Operation) -> None:
    rebalancing.cancel(context, operation.target_id)


CANCELS: Final[Mapping[Sort, Cancel]] = {
    ("workload", "move"): _cancel_move,
    ("host", "drain"): _cancel_drain,
    ("cluster", "rebalance"): _cancel_rebalancing,
    **{("image", verb): _cancel_image for verb in ("import", "build", "publish")},
}
RETRIES: Final[Mapping[Sort, Retry]] = {
    **{("workload", verb): _power for verb in POWER},
    ("workload", "move"): _move,
    ("workload", "delete"): _delete,
    ("host", "drain"): _drain,
    **{("host", verb): _by_ssh for verb in BY_SSH},
    **{("host", verb): _fence for verb in FENCING},
    ("cluster", "rebalance"): _rebalance,
    **{("image", verb): _image for verb in ("import", "build")},
}
