"""Log-in, log-out, and what is one's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from flask import Blueprint, g, redirect, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import session
from virtmgr.console.rest import Refusal, Rest

_LIFETIME: Final = timedelta(hours=12)  # as after a log-in by password

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
