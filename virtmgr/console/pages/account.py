"""Log-in, log-out, and what is one's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Blueprint, g, redirect, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import choices, session
from virtmgr.console.answers import done
from virtmgr.console.pages.users import LIFETIMES, ROLES, token_body
from virtmgr.console.rest import Refusal, Rest

_LIFETIME: Final = timedelta(hours=12)  # as after a log-in by password
_SESSIONS: Final = ("login", "console")  # names of the tokens that log-ins make

blueprint = Blueprint("account", __name__)


@blueprint.get("/login")
def log_in() -> str:
    """The form to log in with a password or a token."""
    return render_template("account/login.html", next=request.args.get("next", "/"))


@blueprint.post("/login")
def check() -> tuple[str, int] | Response:
    """Begin a session, or say why not."""
    form = request.form
    try:
        made = _by_token(form["token"]) if form.get("token") else _by_password()
    except Refusal as refusal:
        told = render_template(
            "account/login.html", refusal=refusal, next=form.get("next", "/"), given=form
        )
        return told, refusal.status
    response = redirect(_local(form.get("next", "/")), 303)
    session.begin(response, *made)
    return response


def _by_password() -> tuple[str, str]:
    """The id and the secret of a new token for whoever knows the password."""
    body = {
        "name": request.form.get("name", ""),
        "password": request.form.get("password", ""),
        "idle_seconds": session.IDLE_SECONDS,
    }
    made = g.rest.ask("POST", "/login", body)
    return made["token_id"], made["token"]


def _by_token(secret: str) -> tuple[str, str]:
    """The same for whoever has a token, such as the one of ``virtmgr init``, which stays.

    A narrowed token can make no other; it is the session's own then, and log-out leaves it.
    """
    rest: Rest = g.rest.as_token(secret.strip())
    who = rest.get("/whoami")
    if who["token_role"] or who["token_project"]:
        return "", secret.strip()
    until = datetime.now(UTC) + _LIFETIME
    body = {
        "name": "console",
        "expires_at": until.isoformat(),
        "idle_seconds": session.IDLE_SECONDS,
    }
    made = rest.ask("POST", "/tokens", body)
    return made["id"], made["token"]


def _local(address: str) -> str:
    """``address``, if it is a page of this console: others must not be led to from here."""
    parts = urlsplit(address)
    inside = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if inside and not parts.netloc and not parts.scheme else "/"


@blueprint.post("/logout")
def log_out() -> Response:
    """End the session, also for whoever has a copy of the cookie."""
    response = redirect("/login", 303)
    if session.token_id():
        g.rest.ask("DELETE", "/tokens/{token}", token=session.token_id())
    session.end(response)
    return response


@blueprint.get("/account")
def show() -> str:
    """What is one's own: password, sessions and tokens."""
    return _show()


def _show(**more: Any) -> str:
    me = g.who["user"]["id"]
    own = g.rest.get("/tokens", {"user": me, "sort": "-created_at", "limit": 200})["items"]
    return render_template(
        "account/show.html",
        sessions=[token for token in own if token["name"] in _SESSIONS],
        tokens=[token for token in own if token["name"] not in _SESSIONS],
        current=session.token_id(),
        projects=choices.projects(),
        roles=ROLES,
        lifetimes=LIFETIMES,
        **more,
    )


@blueprint.post("/account/password")
def set_password() -> tuple[str, int] | Response:
    """Choose another password, once the present one is known."""
    form = request.form
    if form["password"] != form["again"]:
        return _show(mismatch=True), 422
    me = g.who["user"]
    try:
        _check_password(me["name"], form["present"])
        g.rest.ask("PUT", "/users/{user}/password", {"password": form["password"]}, user=me["id"])
    except Refusal as refusal:
        return _show(password_refusal=refusal), 422
    return done("Your password is changed", goto="/account")


def _check_password(name: str, present: str) -> None:
    """Whoever finds an open session must not be able to take the account over.

    :raises Refusal: it is not the password, or too many were tried.
    """
    made = g.rest.ask("POST", "/login", {"name": name, "password": present})
    g.rest.ask("DELETE", "/tokens/{token}", token=made["token_id"])


@blueprint.post("/account/tokens")
def make_token() -> str | tuple[str, int]:
    """Make a token of one's own, and show its secret this once."""
    try:
        made = g.rest.ask("POST", "/tokens", token_body(request.form, datetime.now(UTC)))
    except Refusal as refusal:
        return _show(token_refusal=refusal, given=request.form), 422
    return _show(made=made.document)


@blueprint.post("/account/tokens/<token>/revoke")
def revoke(token: str) -> Response:
    """End a session or a token of one's own."""
    g.rest.ask("DELETE", "/tokens/{token}", token=token)
    if token == session.token_id():
        response = done("", goto="/login")
        session.end(response)
        return response
    return done("It is revoked", refresh="live-token")


@blueprint.post("/account/sessions/end-others")
def end_others() -> Response:
    """End all sessions but this one."""
    me = g.who["user"]["id"]
    own = g.rest.get("/tokens", {"user": me, "sort": "-created_at", "limit": 200})["items"]
    for token in own:
        if token["name"] in _SESSIONS and token["id"] != session.token_id():
            g.rest.ask("DELETE", "/tokens/{token}", token=token["id"])
    return done("All other sessions are ended", refresh="live-token")
