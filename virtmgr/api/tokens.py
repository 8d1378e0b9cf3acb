"""Routes of tokens."""

from __future__ import annotations

from pydantic import Field

from virtmgr.api.answers import Answer, Listing, listing
from virtmgr.api.conventions import ListParameters
from virtmgr.api.routing import Route, create, delete, read
from virtmgr.api.schemas.users import NewTokenView, TokenView, token_presenter
from virtmgr.domain.access import Action
from virtmgr.services import tokens
from virtmgr.services.context import Context
from virtmgr.services.tokens import TokenCreate


class TokenParameters(ListParameters):
    """Filters of the list."""

    user: str | None = Field(None, max_length=128, description="Whose, by name or id.")


def list_(context: Context, query: TokenParameters) -> Answer[Listing[TokenView]]:
    """List one's own tokens; administrators' lists show all"""
    owner = tokens.owner_filter(context, query.user)
    asked = query.query() if owner is None else query.query(user=owner)
    page = tokens.list_(context, asked)
    return listing(page, token_presenter(context.uow, page.items))


def make(context: Context, body: TokenCreate) -> Answer[NewTokenView]:
    """Make a token; its secret is shown once"""
    token, secret = tokens.create(context, body)
    shown = token_presenter(context.uow)(token)
    view = NewTokenView(**dict(shown), token=secret)
    return Answer(view, location=f"/tokens/{token.id}")


def show(context: Context, token: str) -> Answer[TokenView]:
    """Show a token, without its secret"""
    return Answer(token_presenter(context.uow)(tokens.find(context, token)))


def remove(context: Context, token: str) -> Answer[TokenView]:
    """Revoke a token"""
    return Answer(token_presenter(context.uow)(tokens.delete(context, token)))


_ONE = "/tokens/{token}"

ROUTES: tuple[Route, ...] = (
    read("/tokens", list_, Action.ACCOUNT_VIEW),
    create("/tokens", make, Action.ACCOUNT_UPDATE),
    read(_ONE, show, Action.ACCOUNT_VIEW),
    delete(_ONE, remove, Action.ACCOUNT_UPDATE),
)
