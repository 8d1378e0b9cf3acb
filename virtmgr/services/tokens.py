"""Tokens: one's own; administrators see and make everybody's."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from virtmgr.domain.access import Action
from virtmgr.domain.errors import InvalidRequest, NotFound
from virtmgr.domain.ids import new_id
from virtmgr.domain.project import Role, Token
from virtmgr.domain.values import Name, Reference, Value
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services.auth import new_secret
from virtmgr.services.context import Context

IdleSeconds = Annotated[
    int | None,
    Field(ge=60, le=30 * 86400, description="It ends when it was not used for so long."),
]


class TokenCreate(Value):
    """A new token."""

    name: Name = Field(description="What it is for.")
    user: Reference | None = Field(None, description="Whose; administrators only. Default: own.")
    role: Role | None = Field(None, description="Narrows it to less than its user may do.")
    project: Reference | None = Field(None, description="Narrows it to one project.")
    expires_at: AwareDatetime | None = Field(None, description="RFC 3339; null: never.")
    idle_seconds: IdleSeconds = None


def list_(context: Context, query: ListQuery) -> Page[Token]:
    """The principal's own tokens; administrators' lists are not limited."""
    return context.uow.tokens.list(query)


def owner_filter(context: Context, user: str | None) -> str | None:
    """Id of the user whose tokens a list shows; None: everybody's.

    :raises NotFound: there is no such user, or it is not one's own business.
    """
    everybody = context.allows(Action.TOKENS_VIEW, None)
    if user is None:
        return None if everybody else context.principal.user_id
    if user in (context.principal.user_id, context.principal.name):
        return context.principal.user_id
    found = context.uow.users.find(user) if everybody else None
    if found is None:
        raise NotFound(f"user {user!r} does not exist", field="user")
    return found.id


def find(context: Context, id: str) -> Token:
    """A token that the principal may see.

    :raises NotFound: there is none.
    """
    token = context.uow.tokens.get(id)
    own = token is not None and token.user_id == context.principal.user_id
    if token is None or not (own or context.allows(Action.TOKENS_VIEW, None)):
        raise NotFound(f"token {id!r} does not exist")
    return token


def create(context: Context, fields: TokenCreate) -> tuple[Token, str]:
    """A new token and its secret, which is not kept.

    :raises Forbidden: it is for another user, and the principal is no administrator.
    """
    user_id = context.principal.user_id
    if fields.user not in (None, user_id, context.principal.name):
        context.require(Action.TOKENS_CREATE, None, f"user {fields.user!r}")
        user = context.uow.users.find(str(fields.user))
        if user is None:
            raise NotFound(f"user {fields.user!r} does not exist", field="user")
        user_id = user.id
    else:
        context.require(Action.ACCOUNT_UPDATE, None, "the own account")
    if fields.expires_at is not None and fields.expires_at <= context.now:
        raise InvalidRequest("the token would have expired already", field="expires_at")
    secret, secret_hash = new_secret()
    token = Token(
        id=new_id(),
        user_id=user_id,
        name=fields.name,
        secret_hash=secret_hash,
        role=fields.role,
        project_id=_project_id(context, fields.project),
        expires_at=fields.expires_at,
        idle_seconds=fields.idle_seconds,
        address=context.origin.address,
        user_agent=context.origin.user_agent,
        created_at=context.now,
    )
    context.uow.tokens.add(token)
    context.record(
        "token.created", token, f"token {token.name} was created", data={"user": user_id}
    )
    return token, secret


def _project_id(context: Context, reference: str | None) -> str | None:
    if reference is None:
        return None
    project = context.uow.projects.find(reference)
    if project is None:
        raise NotFound(f"project {reference!r} does not exist", field="project")
    context.require(Action.PROJECTS_VIEW, project.id, f"project {reference!r}")
    return project.id


def delete(context: Context, id: str) -> Token:
    """Revoke a token: it fails from the next request on."""
    token = find(context, id)
    if token.user_id != context.principal.user_id:
        context.require(Action.TOKENS_DELETE, None, f"token {id!r}")
    context.record("token.deleted", token, f"token {token.name} was revoked")
    context.uow.tokens.remove(token)
    context.uow.flush()
    return token
