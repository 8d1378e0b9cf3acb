"""Routes of operations."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from virtmgr.api.answers import Answer, Listing, listing
from virtmgr.api.conventions import ListParameters
from virtmgr.api.filters import by_id
from virtmgr.api.routing import Route, read
from virtmgr.api.schemas.operations import OperationView, presenter
from virtmgr.domain.access import Action
from virtmgr.domain.operation import OperationState
from virtmgr.services import operations
from virtmgr.services.context import Context


class OperationParameters(ListParameters):
    """Filters of the list."""

    default_sort: ClassVar[str] = "-created_at"

    verb: str | None = Field(None, max_length=64, description="create, start, import, …")
    state: OperationState | None = Field(None, description="pending, running, succeeded, …")
    target: str | None = Field(None, max_length=64, description="Id of what it is about.")
    target_type: str | None = Field(None, max_length=64, description="workload, image, …")
    project: str | None = Field(None, max_length=128, description="Project, by name or id.")
    user: str | None = Field(None, max_length=128, description="Who asked, by name or id.")


def list_(context: Context, query: OperationParameters) -> Answer[Listing[OperationView]]:
    """List operations, newest first"""
    asked = query.query(project_ids=context.visible, **by_id(context.uow, query))
    return listing(operations.list_(context, asked), presenter(context.uow))


def show(context: Context, operation: str) -> Answer[OperationView]:
    """Show an operation"""
    return Answer(presenter(context.uow)(operations.find(context, operation)))


ROUTES: tuple[Route, ...] = (
    read("/operations", list_, Action.OPERATIONS_VIEW),
    read("/operations/{operation}", show, Action.OPERATIONS_VIEW),
)
