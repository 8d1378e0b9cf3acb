"""Settings: the certificate authority, and what this virtmgr is."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, g, make_response, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from virtmgr.console import preferences
from virtmgr.console.answers import done
from virtmgr.console.rest import Refusal

blueprint = Blueprint("settings", __name__, url_prefix="/settings")

THEMES: Final = (("auto", "as the system has it"), ("light", "light"), ("dark", "dark"))


@blueprint.get("")
def show() -> str:
    """The private CA, this virtmgr, and the viewer's own choices."""
    return render_template(
        "settings/show.html",
        ca=_ca(),
        version=g.rest.get("/version").document,
        health=_health(),
        themes=THEMES,
    )


def _ca() -> Any:
    """The CA; None: it is not for the viewer to know."""
    try:
        return g.rest.get("/ca").document
    except Refusal as refusal:
        if refusal.status != 403:
            raise
        return None


def _health() -> Any:
    try:
        return g.rest.get("/health").document
    except Refusal as refusal:
        return {"status": "failed", "database": str(refusal)}


@blueprint.get("/ca.pem")
def certificate() -> Response:
    """The certificates that clients trust, as a file."""
    response: Response = make_response(g.rest.get("/ca")["certificate"])
    response.headers["Content-Type"] = "application/x-pem-file"
    response.headers["Content-Disposition"] = 'attachment; filename="virtmgr-ca.pem"'
    return response


@blueprint.post("/ca/rotate")
def rotate() -> AnyResponse:
    """Make the next CA."""
    g.rest.ask("POST", "/ca/rotate", {})
    return done("The next CA is made; hosts learn of it as they speak", refresh="live-ca")


@blueprint.post("/ca/retire")
def retire() -> AnyResponse:
    """Let the CA of before be trusted no more."""
    query = {"force": "true"} if request.form.get("force") else None
    g.rest.ask("POST", "/ca/retire", {}, query=query)
    return done("The CA of before is trusted no more", refresh="live-ca")


@blueprint.post("/preferences")
def prefer() -> AnyResponse:
    """Keep the viewer's choices, in this browser."""
    theme = request.form.get("theme", "auto")
    response = done("Your choice is kept in this browser", goto="/settings")
    if theme in dict(THEMES):
        preferences.keep(response, preferences.THEME, theme, scripts=True)
    return response
