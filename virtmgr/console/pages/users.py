"""Users: people and programs, their roles and tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flask import Blueprint, g, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import choices, forms, listing
from virtmgr.console.answers import done
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.console.rest import Refusal

blueprint = Blueprint("users", __name__, url_prefix="/users")

_ONE: Final = "/users/{user}"
_BINDINGS: Final = 500  # that the list of users reads
ROLES: Final = (
    ("viewer", "viewer: sees"),
    ("member", "member: works with workloads, volumes and networks"),
    ("operator", "operator: hosts, images and quotas too"),
    ("admin", "admin: everything, users too"),
)
LIFETIMES: Final = (
    ("30", "30 days"),
    ("1", "1 day"),
    ("7", "7 days"),
    ("90", "90 days"),
    ("365", "1 year"),
    ("", "for ever"),
)
"""How long a token is good, in days."""

LIST: Final = ListPage(
    noun="users",
    path="/users",
    columns=(
        Column("Name", "name", optional=False),
        Column("Called"),
        Column("State"),
        Column("Roles"),
        Column("Logs in by"),
        Column("Created", "created_at"),
    ),
    choices=(Choice("disabled", "Disabled", ("true", "false")),),
    live="user",
)


def state(user: Mapping[str, Any], now: datetime) -> str:
    """Whether a user may log in: active, disabled, or locked after failed log-ins."""
    if user["disabled"]:
        return "disabled"
    until = user["locked_until"]
    return "locked" if until and datetime.fromisoformat(until) > now else "active"


def expiry(days: str, now: datetime) -> str | None:
    """When a token ends that is good for so many days; for none, never."""
    return (now + timedelta(days=int(days))).isoformat() if days.isdigit() else None


@blueprint.app_template_filter("user_state")
def _state(user: Mapping[str, Any]) -> str:
    return state(user, datetime.now(UTC))


@blueprint.get("")
def list_() -> str:
    """All users, with their roles."""
    bindings = g.rest.get("/role-bindings", {"sort": "created_at", "limit": _BINDINGS})["items"]
    return render_template(
        "users/list.html", list=listing.show(LIST), roles=roles_by_user(bindings)
    )


def roles_by_user(bindings: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What each user is, and where, by the user's id."""
    found: dict[str, list[str]] = {}
    for each in bindings:
        where = f" in {each['project']['name']}" if each["project"] else ""
        found.setdefault(each["user"]["id"], []).append(f"{each['role']}{where}")
    return found


@blueprint.get("/create")
def create() -> str:
    """The form for a new one."""
    return _form({}, None)


def _form(given: Mapping[str, Any], refusal: Refusal | None) -> str:
    return render_template(
        "users/form.html", given=given, refusal=refusal, roles=ROLES, projects=choices.projects()
    )


@blueprint.post("/create")
def make() -> tuple[str, int] | Response:
    """Make it, with a first role if one is chosen."""
    form = request.form
    try:
        g.rest.ask("POST", "/users", forms.filled(form, ("name", "display_name", "password")))
    except Refusal as refusal:
        return _form(form, refusal), 422
    name = form["name"].strip()
    if form.get("role"):
        body = {"user": name, "role": form["role"], **forms.filled(form, ("project",))}
        g.rest.ask("POST", "/role-bindings", body)
    return done(f"User {name} is there", goto=f"/users/{name}")


@blueprint.get("/<user>")
def show(user: str) -> str:
    """A user, with roles and tokens."""
    return _show(user)


def _show(user: str, **more: Any) -> str:
    found = g.rest.get(_ONE, user=user).document
    bindings = {"user": user, "sort": "created_at", "limit": 500}
    tokens = {"user": user, "sort": "-created_at", "limit": 200}
    return render_template(
        "users/show.html",
        user=found,
        bindings=g.rest.get("/role-bindings", bindings)["items"],
        tokens=g.rest.get("/tokens", tokens)["items"],
        projects=choices.projects(),
        roles=ROLES,
        lifetimes=LIFETIMES,
        **more,
    )


@blueprint.post("/<user>/edit")
def change(user: str) -> Response:
    """Change what the user is called, or whether it may log in."""
    body: dict[str, Any] = {}
    if "display_name" in request.form:
        body["display_name"] = request.form["display_name"].strip()
    if "disabled" in request.form:
        body["disabled"] = request.form["disabled"] == "true"
    g.rest.ask("PATCH", _ONE, body, user=user)
    return done(f"User {user} is changed", refresh="live-user")


@blueprint.post("/<user>/password")
def set_password(user: str) -> tuple[str, int] | Response:
    """Give the user another password, which lifts a lock too."""
    try:
        g.rest.ask("PUT", _ONE + "/password", {"password": request.form["password"]}, user=user)
    except Refusal as refusal:
        return _show(user, password_refusal=refusal), 422
    return done(f"{user} has a new password", goto=f"/users/{user}")


@blueprint.post("/<user>/roles")
def give_role(user: str) -> Response:
    """Give the user a role, in a project or everywhere."""
    body = {"user": user, "role": request.form["role"], **forms.filled(request.form, ("project",))}
    g.rest.ask("POST", "/role-bindings", body)
    return done(f"{user} is {body['role']} now", refresh="live-role_binding")


@blueprint.post("/<user>/roles/<binding>/remove")
def take_role(user: str, binding: str) -> Response:
    """Take a role away."""
    g.rest.ask("DELETE", "/role-bindings/{binding}", binding=binding)
    return done(f"The role of {user} is taken away", refresh="live-role_binding")


def token_body(form: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """What a form says of a new token."""
    body = forms.filled(form, ("name", "role", "project"))
    return body | {"expires_at": expiry(form.get("days", ""), now)}


@blueprint.post("/<user>/tokens")
def make_token(user: str) -> str | tuple[str, int]:
    """Make a token for the user, and show its secret this once."""
    body = token_body(request.form, datetime.now(UTC)) | {"user": user}
    try:
        made = g.rest.ask("POST", "/tokens", body)
    except Refusal as refusal:
        return _show(user, token_refusal=refusal, given=request.form), 422
    return _show(user, made=made.document)


@blueprint.post("/<user>/tokens/<token>/revoke")
def revoke(user: str, token: str) -> Response:
    """Let a token be good no more."""
    g.rest.ask("DELETE", "/tokens/{token}", token=token)
    return done(f"The token of {user} is revoked", refresh="live-token")


@blueprint.post("/<user>/delete")
def delete(user: str) -> Response:
    """Delete a user with its tokens and roles."""
    g.rest.ask("DELETE", _ONE, user=user)
    return done(f"User {user} is deleted", goto="/users")
