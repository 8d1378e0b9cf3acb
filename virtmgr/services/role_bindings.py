"""Role bindings: who has which role where."""

from __future__ import annotations

from pydantic import Field

from virtmgr.domain.errors import NotFound
from virtmgr.domain.ids import new_id
from virtmgr.domain.project import Role, RoleBinding
from virtmgr.domain.values import Reference, Value
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services import users
from virtmgr.services.context import Context


class RoleBindingCreate(Value):
    """A new role binding."""

    user: Reference = Field(description="The user, by name or id.")
    role: Role = Field(description="admin, operator, member or viewer.")
    project: Reference | None = Field(None, description="Only in this project; null: everywhere.")


def list_(context: Context, query: ListQuery) -> Page[RoleBinding]:
    """All role bindings."""
    return context.uow.role_bindings.list(query)


def find(context: Context, id: str) -> RoleBinding:
    """The role binding with this id.

    :raises NotFound: there is none.
    """
    binding = context.uow.role_bindings.get(id)
    if binding is None:
        raise NotFound(f"role binding {id!r} does not exist")
    return binding


def create(context: Context, fields: RoleBindingCreate) -> RoleBinding:
    """Give a user a role.

    :raises NotFound: no such user or project.
    :raises NameTaken: the user has the role there already.
    """
    user = context.uow.users.find(fields.user)
    if user is None:
        raise NotFound(f"user {fields.user!r} does not exist", field="user")
    project_id = None
    if fields.project is not None:
        project = context.uow.projects.find(fields.project)
        if project is None:
            raise NotFound(f"project {fields.project!r} does not exist", field="project")
        project_id = project.id
    binding = RoleBinding(
        id=new_id(),
        user_id=user.id,
        role=fields.role,
        project_id=project_id,
        created_at=context.now,
    )
    context.uow.role_bindings.add(binding)
    where = fields.project or "everywhere"
    context.record(
        "role_binding.created",
        binding,
        f"{user.name} was given the role {fields.role.value} ({where})",
        data={"user": user.name, "role": fields.role.value},
    )
    return binding


def delete(context: Context, id: str) -> RoleBinding:
    """Take a role from a user.

    :raises Conflict: nobody would be left who can administrate.
    """
    binding = find(context, id)
    user = users.find(context, binding.user_id)
    if binding.role is Role.ADMIN and binding.project_id is None:
        users.refuse_last_admin(context.uow, user)
    context.record(
        "role_binding.deleted",
        binding,
        f"the role {binding.role.value} was taken from {user.name}",
        data={"user": user.name, "role": binding.role.value},
    )
    context.uow.role_bindings.remove(binding)
    context.uow.flush()
    return binding
