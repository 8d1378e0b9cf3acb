"""Routes about virtmgr itself and about whoever asks."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response
from pydantic import Field, RootModel

from virtmgr import __version__
from virtmgr.api.answers import Answer, View
from virtmgr.api.dispatch import RawRequest, answer_view
from virtmgr.api.routing import Access, Route, raw, read
from virtmgr.api.schemas.common import ReferenceView, Referrer
from virtmgr.api.schemas.users import LoginView, RoleView, WhoAmIView
from virtmgr.domain.access import Action
from virtmgr.domain.values import Value
from virtmgr.domain.workload import WorkloadSpec
from virtmgr.services import auth
from virtmgr.services.context import Context
from virtmgr.services.tokens import IdleSeconds


class LoginBody(Value):
    """A name and a password."""

    name: str = Field(max_length=128)
    password: str = Field(max_length=256)
    idle_seconds: IdleSeconds = None


class VersionView(View):
    """Which virtmgr this is."""

    version: str
    api: Literal["v1"]


class HealthView(View):
    """Whether virtmgr can work."""

    status: Literal["ok"]
    database: Literal["ok"]


class SchemaView(RootModel[dict[str, Any]]):
    """A JSON Schema (2020-12): every field with its meaning, unit and default."""


def show_version(call: RawRequest) -> Response:
    """Show virtmgr's version"""
    del call
    return answer_view(VersionView(version=__version__, api="v1"))


def show_health(call: RawRequest) -> Response:
    """Check that virtmgr can reach its database"""
    with call.services.units(read_only=True) as uow:
        uow.settings.get("initialised_at")
    return answer_view(HealthView(status="ok", database="ok"))


def log_in(call: RawRequest, body: LoginBody) -> Response:
    """Log in with a password: answers a token that is good for twelve hours"""
    made = auth.log_in(
        call.services,
        body.name,
        body.password,
        idle_seconds=body.idle_seconds,
        origin=call.origin,
    )
    view = LoginView(
        token=made.secret,
        token_id=made.token_id,
        user=ReferenceView(id=made.user_id, name=made.user_name),
        expires_at=made.expires_at,
    )
    return answer_view(view)


def who_am_i(context: Context) -> Answer[WhoAmIView]:
    """Show who asks, and with which roles"""
    principal, project = (
        context.principal,
        Referrer(context.uow.projects, [id for _, id in context.principal.bindings]),
    )
    roles = [RoleView(role=role, project=project(id)) for role, id in principal.bindings]
    view = WhoAmIView(
        user=ReferenceView(id=principal.user_id, name=principal.name),
        roles=roles,
        token_role=principal.token_role,
        token_project=project(principal.token_project_id),
    )
    return Answer(view)


def show_workload_schema(context: Context) -> Answer[SchemaView]:
    """Show every field of a workload's spec: meaning, unit and default"""
    del context
    return Answer(SchemaView(WorkloadSpec.model_json_schema()))


ROUTES: tuple[Route, ...] = (
    raw("GET", "/version", show_version, None, access=Access.PUBLIC, answers={200: VersionView}),
    raw("GET", "/health", show_health, None, access=Access.PUBLIC, answers={200: HealthView}),
    raw("POST", "/login", log_in, None, access=Access.PUBLIC, answers={200: LoginView}),
    read("/whoami", who_am_i, Action.ACCOUNT_VIEW),
    read("/schema/workload", show_workload_schema, Action.ACCOUNT_VIEW),
)
