"""Users, role bindings and tokens as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView, Referrer
from virtmgr.api.secrets import secret_field
from virtmgr.domain.project import Role, RoleBinding, Token
from virtmgr.ports.unit_of_work import UnitOfWork


class UserView(View):
    """A person or a program that may log in."""

    id: str
    name: str
    display_name: str
    disabled: bool
    has_password: bool = Field(description="false: only tokens work.")
    locked_until: datetime | None = Field(description="Too many log-ins failed.")
    created_at: datetime
    version: int


class RoleBindingView(View):
    """A user's role, in one project or everywhere."""

    id: str
    user: ReferenceView
    role: Role
    project: ReferenceView | None = Field(description="null: everywhere.")
    created_at: datetime


class TokenView(View):
    """A bearer token; its secret is not kept."""

    id: str
    name: str
    user: ReferenceView
    role: Role | None = Field(description="Narrows what the token may do.")
    project: ReferenceView | None = Field(description="Narrows where it may do it.")
    expires_at: datetime | None
    idle_seconds: int | None = Field(description="It ends when it was not used for so long.")
    last_used_at: datetime | None = Field(description="Within a minute.")
    address: str | None = Field(description="Where the request that made it came from.")
    user_agent: str | None = Field(description="Of the program that made it, as it says itself.")
    created_at: datetime


class NewTokenView(TokenView):
    """A new token with its secret."""

    token: str | None = secret_field("The secret: shown this once.")


class LoginView(View):
    """A token from a log-in."""

    token: str = Field(description="Send it as 'Authorization: Bearer TOKEN'.")
    token_id: str
    user: ReferenceView
    expires_at: datetime


class RoleView(View):
    """A role that is held, narrowed by the token."""

    role: Role
    project: ReferenceView | None = Field(description="null: everywhere.")


class WhoAmIView(View):
    """Who asks."""

    user: ReferenceView
    roles: list[RoleView]
    token_role: Role | None
    token_project: ReferenceView | None


def role_binding_presenter(
    uow: UnitOfWork, bindings: Sequence[RoleBinding] = ()
) -> Callable[[RoleBinding], RoleBindingView]:
    """How to present role bindings."""
    user = Referrer(uow.users, (binding.user_id for binding in bindings))
    project = Referrer(uow.projects, (binding.project_id for binding in bindings))

    def present(binding: RoleBinding) -> RoleBindingView:
        return RoleBindingView(
            id=binding.id,
            user=user.known(binding.user_id),
            role=binding.role,
            project=project(binding.project_id),
            created_at=binding.created_at,
        )

    return present


def token_presenter(uow: UnitOfWork, tokens: Sequence[Token] = ()) -> Callable[[Token], TokenView]:
    """How to present tokens."""
    user = Referrer(uow.users, (token.user_id for token in tokens))
    project = Referrer(uow.projects, (token.project_id for token in tokens))

    def present(token: Token) -> TokenView:
        return TokenView(
            id=token.id,
            name=token.name,
            user=user.known(token.user_id),
            role=token.role,
            project=project(token.project_id),
            expires_at=token.expires_at,
            idle_seconds=token.idle_seconds,
            last_used_at=token.last_used_at,
            address=token.address,
            user_agent=token.user_agent,
            created_at=token.created_at,
        )

    return present
