"""Operations as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import (
    ReferenceView,
    Referrer,
    TargetView,
    WhyNotView,
    why_not_view,
)
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.workload import Reason
from virtmgr.services.context import Context
from virtmgr.services.operation_control import cannot_cancel, cannot_retry


class OperationView(View):
    """One asynchronous request and its progress."""

    id: str
    verb: str = Field(description="What is done: create, start, import, …")
    target: TargetView
    project: ReferenceView | None
    user: ReferenceView | None = Field(description="Who asked; null: virtmgr itself.")
    state: OperationState
    progress: float = Field(ge=0, le=1, description="0 to 1.")
    message: str = Field(description="What is being done, for people.")
    error: dict[str, Any] | None = Field(description="A problem, once it has failed.")
    cannot_cancel: WhyNotView | None = Field(
        description="Why it cannot be cancelled; null: it can, unless what it is about is too far."
    )
    cannot_retry: WhyNotView | None = Field(
        description="Why it cannot be tried again as it was asked; null: it can."
    )
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class OperationBatch(View):
    """Several operations that were begun together."""

    items: list[OperationView]


class LogLineView(View):
    """One line of an operation's log."""

    sequence: int = Field(description="Grows; not by one.")
    at: datetime
    text: str


class OperationLogView(View):
    """What an operation wrote after a line that was read before."""

    items: list[LogLineView] = Field(description="Oldest first.")
    finished: bool = Field(description="Nothing comes after these lines.")


def _why_not(reason: Reason | None) -> WhyNotView | None:
    return None if reason is None else why_not_view(reason)


def presenter(
    context: Context, operations: Sequence[Operation] = ()
) -> Callable[[Operation], OperationView]:
    """How to present operations, with the names of their projects and users, to whoever asks."""
    uow = context.uow
    own, who = context.project, context.principal
    project = Referrer(
        uow.projects,
        (operation.project_id for operation in operations),
        {own.id: own.name} if own is not None else None,
    )
    user = Referrer(
        uow.users, (operation.user_id for operation in operations), {who.user_id: who.name}
    )

    def present(operation: Operation) -> OperationView:
        return OperationView(
            id=operation.id,
            verb=operation.verb,
            target=TargetView(
                type=operation.target_type, id=operation.target_id, name=operation.target_name
            ),
            project=project(operation.project_id),
            user=user(operation.user_id),
            state=operation.state,
            progress=operation.progress,
            message=operation.message,
            error=operation.error,
            cannot_cancel=_why_not(cannot_cancel(context, operation)),
            cannot_retry=_why_not(cannot_retry(context, operation)),
            created_at=operation.created_at,
            updated_at=operation.updated_at,
            finished_at=operation.finished_at,
        )

    return present
