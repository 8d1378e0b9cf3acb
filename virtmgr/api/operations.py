"""Routes of operations."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from virtmgr.api.answers import Answer, Listing, Started, listing
from virtmgr.api.conventions import ListParameters, Moment, Query
from virtmgr.api.filters import by_id
from virtmgr.api.routing import Route, change, read, start
from virtmgr.api.schemas.operations import (
    LogLineView,
    OperationLogView,
    OperationView,
    presenter,
)
from virtmgr.domain.access import Action
from virtmgr.domain.operation import OperationState
from virtmgr.services import operation_control, operations
from virtmgr.services.context import Context


class OperationParameters(ListParameters):
    """Filters of the list."""

    default_sort: ClassVar[str] = "-created_at"

    id: list[str] | None = Field(
        None, max_length=500, description="Those with these ids; repeat it for several."
    )
    verb: str | None = Field(None, max_length=64, description="create, start, import, …")
    state: list[OperationState] | None = Field(
        None, max_length=16, description="pending, running, succeeded, …; repeat it for several."
    )
    target: str | None = Field(None, max_length=64, description="Id of what it is about.")
    target_type: str | None = Field(None, max_length=64, description="workload, image, …")
    project: str | None = Field(None, max_length=128, description="Project, by name or id.")
    user: str | None = Field(None, max_length=128, description="Who asked, by name or id.")
    since: Moment | None = Field(None, description="Those that were asked for since then.")
    mended: bool | None = Field(
        None, description="Whether the same has succeeded later, as when it was tried again."
    )


class OperationLogQuery(Query):
    """From where on."""

    after: int = Field(
        0, ge=0, lt=2**63, description="The sequence of the last line that was read."
    )
    limit: int = Field(1000, ge=1, le=1000, description="Most lines of one answer.")


def list_(context: Context, query: OperationParameters) -> Answer[Listing[OperationView]]:
    """List operations, newest first"""
    asked = query.query(project_ids=context.visible, **by_id(context.uow, query))
    page = operations.list_(context, asked)
    return listing(page, presenter(context, page.items))


def show(context: Context, operation: str) -> Answer[OperationView]:
    """Show an operation"""
    return Answer(presenter(context)(operations.find(context, operation)))


def show_log(
    context: Context, operation: str, query: OperationLogQuery
) -> Answer[OperationLogView]:
    """Read what an operation wrote: now all of it, later what came after"""
    lines, finished = operations.log_after(context, operation, query.after, query.limit)
    items = [LogLineView(**line._asdict()) for line in lines]
    return Answer(OperationLogView(items=items, finished=finished))


def cancel(context: Context, operation: str) -> Answer[OperationView]:
    """Cancel an operation that goes on: a move, a drain, a rebalancing, or an image being made"""
    return Answer(presenter(context)(operation_control.cancel(context, operation)))


def retry(context: Context, operation: str) -> Started:
    """Ask once more for what failed, as it was asked: a new operation"""
    return Started([operation_control.retry(context, operation)])


ROUTES: tuple[Route, ...] = (
    read("/operations", list_, Action.OPERATIONS_VIEW),
    read("/operations/{operation}", show, Action.OPERATIONS_VIEW),
    read("/operations/{operation}/log", show_log, Action.OPERATIONS_VIEW),
    change("POST", "/operations/{operation}/cancel", cancel, Action.OPERATIONS_VIEW),
    start("POST", "/operations/{operation}/retry", retry, Action.OPERATIONS_VIEW),
)
