"""Routes of role bindings."""

from __future__ import annotations

from pydantic import Field

from virtmgr.api.answers import Answer, Listing, listing
from virtmgr.api.conventions import ListParameters
from virtmgr.api.filters import by_id
from virtmgr.api.routing import Route, create, delete, read
from virtmgr.api.schemas.users import RoleBindingView, role_binding_presenter
from virtmgr.domain.access import Action
from virtmgr.domain.project import Role, RoleBinding
from virtmgr.services import role_bindings
from virtmgr.services.context import Context
from virtmgr.services.role_bindings import RoleBindingCreate


class RoleBindingParameters(ListParameters):
    """Filters of the list."""

    user: str | None = Field(None, max_length=128, description="User, by name or id.")
    role: Role | None = Field(None, description="admin, operator, member or viewer.")
    project: str | None = Field(None, max_length=128, description="Project, by name or id.")


def _answer(context: Context, binding: RoleBinding) -> Answer[RoleBindingView]:
    view = role_binding_presenter(context.uow)(binding)
    return Answer(view, location=f"/role-bindings/{binding.id}")


def list_(context: Context, query: RoleBindingParameters) -> Answer[Listing[RoleBindingView]]:
    """List role bindings"""
    page = role_bindings.list_(context, query.query(**by_id(context.uow, query)))
    return listing(page, role_binding_presenter(context.uow, page.items))


def make(context: Context, body: RoleBindingCreate) -> Answer[RoleBindingView]:
    """Give a user a role, in a project or everywhere"""
    return _answer(context, role_bindings.create(context, body))


def show(context: Context, binding: str) -> Answer[RoleBindingView]:
    """Show a role binding"""
    return _answer(context, role_bindings.find(context, binding))


def remove(context: Context, binding: str) -> Answer[RoleBindingView]:
    """Take a role from a user"""
    return _answer(context, role_bindings.delete(context, binding))


_ONE = "/role-bindings/{binding}"

ROUTES: tuple[Route, ...] = (
    read("/role-bindings", list_, Action.ROLE_BINDINGS_VIEW),
    create("/role-bindings", make, Action.ROLE_BINDINGS_CREATE),
    read(_ONE, show, Action.ROLE_BINDINGS_VIEW),
    delete(_ONE, remove, Action.ROLE_BINDINGS_DELETE),
)
