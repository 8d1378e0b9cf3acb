"""Routes of users and their passwords."""

from __future__ import annotations

from pydantic import Field

from virtmgr.api.answers import Answer, Listing, listing
from virtmgr.api.conventions import ListParameters
from virtmgr.api.merge_patch import Patch
from virtmgr.api.routing import Route, change, create, delete, read
from virtmgr.api.schemas.users import UserView
from virtmgr.domain.access import Action
from virtmgr.domain.project import User
from virtmgr.domain.values import Value
from virtmgr.services import users
from virtmgr.services.context import Context
from virtmgr.services.passwords import hash_password
from virtmgr.services.users import Password, UserCreate, UserFields


class UserParameters(ListParameters):
    """Filters of the list."""

    disabled: bool | None = Field(None, description="Only those who are, or are not.")


class PasswordBody(Value):
    """A new password."""

    password: Password


def present(user: User) -> UserView:
    """The user without what is secret."""
    return UserView(
        id=user.id,
        name=user.name,
        display_name=user.display_name,
        disabled=user.disabled,
        has_password=user.password_hash is not None,
        locked_until=user.locked_until,
        created_at=user.created_at,
        version=user.version,
    )


def _answer(user: User) -> Answer[UserView]:
    return Answer(present(user), user.version, f"/users/{user.id}")


def list_(context: Context, query: UserParameters) -> Answer[Listing[UserView]]:
    """List users"""
    return listing(users.list_(context, query.query()), present)


def make(context: Context, body: UserCreate) -> Answer[UserView]:
    """Make a user, who has no role yet"""
    return _answer(users.create(context, body))


def show(context: Context, user: str) -> Answer[UserView]:
    """Show a user"""
    return _answer(users.find(context, user))


def patch(context: Context, user: str, patch: Patch[UserFields]) -> Answer[UserView]:
    """Change a user (JSON merge patch)"""
    found = users.lock(context, user)
    current = UserFields.model_validate(found, from_attributes=True)
    return _answer(users.update(context, found, patch.apply(current)))


def remove(context: Context, user: str) -> Answer[UserView]:
    """Delete a user with its tokens and role bindings"""
    return _answer(users.delete(context, user))


def put_password(context: Context, user: str, body: PasswordBody) -> Answer[UserView]:
    """Set a password: one's own, or as an administrator anybody's"""
    return _answer(users.set_password(context, user, hash_password(body.password)))


_ONE = "/users/{user}"

ROUTES: tuple[Route, ...] = (
    read("/users", list_, Action.USERS_VIEW),
    create("/users", make, Action.USERS_CREATE),
    read(_ONE, show, Action.USERS_VIEW),
    change("PATCH", _ONE, patch, Action.USERS_UPDATE),
    delete(_ONE, remove, Action.USERS_DELETE),
    change("PUT", _ONE + "/password", put_password, Action.ACCOUNT_UPDATE),
)
