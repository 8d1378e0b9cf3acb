"""Users and their passwords."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from virtmgr.domain.access import Action
from virtmgr.domain.errors import Conflict, NotFound
from virtmgr.domain.ids import new_id
from virtmgr.domain.project import Role, User
from virtmgr.domain.values import Name, Value
from virtmgr.ports.unit_of_work import ListQuery, Page, UnitOfWork
from virtmgr.services.context import Context
from virtmgr.services.passwords import hash_password

Password = Annotated[
    str,
    Field(
        min_length=12,
        max_length=256,
        description="At least 12 characters; all are allowed (NIST SP 800-63B, 3.1.1.2).",
    ),
]


class UserFields(Value):
    """What can be set of a user."""

    name: Name = Field(description="Unique; what the user logs in with.")
    display_name: str = Field("", max_length=256, description="For people.")
    disabled: bool = Field(False, description="A disabled user's tokens and password fail.")


class UserCreate(UserFields):
    """A new user."""

    password: Password | None = Field(None, description="Without one, only tokens work.")


def list_(context: Context, query: ListQuery) -> Page[User]:
    """All users."""
    return context.uow.users.list(query)


def find(context: Context, reference: str) -> User:
    """The user with this id or name.

    :raises NotFound: there is none.
    """
    user = context.uow.users.find(reference)
    if user is None:
        raise NotFound(f"user {reference!r} does not exist")
    return user


def lock(context: Context, reference: str) -> User:
    """The same, to be changed."""
    found = context.uow.users.find(reference)
    return context.for_change(context.uow.users, found, f"user {reference!r}")


def create(context: Context, fields: UserCreate) -> User:
    """A new user without any role.

    :raises NameTaken: another user has the name.
    """
    user = User(
        id=new_id(),
        name=fields.name,
        display_name=fields.display_name,
        disabled=fields.disabled,
        password_hash=None if fields.password is None else hash_password(fields.password),
        created_at=context.now,
    )
    context.uow.users.add(user)
    context.record("user.created", user, f"user {user.name} was created")
    return user


def update(context: Context, user: User, fields: UserFields) -> User:
    """Set the fields of a locked user.

    :raises Conflict: nobody would be left who can administrate.
    """
    if fields.disabled and not user.disabled:
        refuse_last_admin(context.uow, user)
    user.name, user.display_name, user.disabled = fields.name, fields.display_name, fields.disabled
    context.record("user.updated", user, f"user {user.name} was changed")
    context.uow.flush()
    return user


def set_password(context: Context, reference: str, password_hash: str) -> User:
    """Give a user a new password, by its hash, and lift the lock of failed log-ins.

    :raises Forbidden: it is neither the principal's own, nor is the principal an administrator.
    """
    own = reference in (context.principal.user_id, context.principal.name)
    if not own:
        context.require(Action.USERS_UPDATE, None, f"user {reference!r}")
    user = lock(context, reference)
    user.password_hash = password_hash
    user.failed_logins, user.locked_until = 0, None
    context.record("user.password_changed", user, f"the password of {user.name} was changed")
    context.uow.flush()
    return user


def delete(context: Context, reference: str) -> User:
    """Delete a user with its tokens and role bindings.

    :raises Conflict: nobody would be left who can administrate.
    """
    user = lock(context, reference)
    refuse_last_admin(context.uow, user)
    context.record("user.deleted", user, f"user {user.name} was deleted")
    context.uow.users.remove(user)
    context.uow.flush()
    return user


def refuse_last_admin(uow: UnitOfWork, user: User) -> None:
    """Refuse to take its rights from the last administrator.

    :raises Conflict: no other enabled user has the role admin everywhere.
    """
    admins = ListQuery(filters={"role": Role.ADMIN.value}, sort="created_at", limit=500)
    others = {
        binding.user_id
        for binding in uow.role_bindings.list(admins).items
        if binding.project_id is None and binding.user_id != user.id
    }
    own = any(
        binding.role is Role.ADMIN and binding.project_id is None
        for binding in uow.role_bindings.of_user(user.id)
    )
    enabled = (other for id in others if (other := uow.users.get(id)) and not other.disabled)
    if own and not user.disabled and next(enabled, None) is None:
        raise Conflict(
            f"user {user.name!r} is the last administrator",
            code="last_admin",
            hint="give another user the role admin first",
        )
