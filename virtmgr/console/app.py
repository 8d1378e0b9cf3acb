"""The console as a Flask application of its own, beside the API's."""

from __future__ import annotations

from functools import partial
from typing import Any, Final
from urllib.parse import unquote, urlencode, urlsplit

import structlog
from flask import Flask, Response, g, make_response, redirect, render_template, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import MapAdapter
from werkzeug.wrappers import Response as AnyResponse

from virtmgr.config.resources import resource_path
from virtmgr.console import assets, formatting, navigation, pages, preferences, session
from virtmgr.console.answers import hint, is_partial, tell, toast
from virtmgr.console.policy import policy
from virtmgr.console.rest import Refusal, Rest, Wsgi
from virtmgr.console.rights import Rights, missing
from virtmgr.domain.ids import new_id

log = structlog.get_logger(__name__)

_PUBLIC: Final = ("assets.serve", "account.log_in", "account.check")
_BACKGROUND: Final = ("frame.live",)  # EventSource cannot send headers
_ICONS: Final = "vendor/icons.svg"


def create_console(api: Wsgi) -> Flask:
    """The console over the API's application."""
    app = Flask(__name__, template_folder=str(resource_path("templates")), static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 16 * 1024**2
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(formatting.FILTERS, hint=hint)
    app.jinja_env.globals.update(formatting.GLOBALS, asset=assets.url, places=navigation.PLACES)
    app.register_blueprint(assets.blueprint)
    for blueprint in pages.BLUEPRINTS:
        app.register_blueprint(blueprint)
    app.jinja_env.globals["may"] = partial(_may, app.url_map.bind("console"))
    app.before_request(partial(_begin, api))
    app.after_request(_finish)
    app.context_processor(_frame)
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _defect)
    return app


def _begin(api: Wsgi) -> AnyResponse | None:
    """Who asks; without a session all but the log-in leads there."""
    session.check_origin()
    headers = {"User-Agent": request.headers.get("User-Agent", "")}
    if _is_background():
        headers["X-Background"] = "1"
    g.rest = Rest(api, session.secret(), address=request.remote_addr, headers=headers)
    if request.endpoint in _PUBLIC:
        return None
    if session.secret() is None:
        return to_log_in()
    g.rights = Rights(session.who() or {})
    g.project = request.cookies.get(preferences.PROJECT) or None
    return _refused_page()


def _refused_page() -> AnyResponse | None:
    """What to show instead of a page that is only of use to those with more rights."""
    endpoint, values = request.endpoint or "", request.view_args or {}
    hidden = "project" in values and not g.rights.sees(values["project"])
    if request.method != "GET" or hidden or g.rights.reaches(endpoint, values):
        return None  # what changes something is the API's to decide, and what is hidden
    lacking = f"it takes {missing(endpoint)}"
    return _tell(403, "This page is not for you", lacking, None)


def _may(routes: MapAdapter, path: str, method: str = "POST") -> bool:
    """Whether the viewer is offered what a button asks for, or a link leads to."""
    try:
        endpoint, values = routes.match(unquote(urlsplit(path).path), method=method)
    except (NotFound, MethodNotAllowed):
        return True  # it is not of this console
    return bool(g.rights.reaches(endpoint, values))


def _is_background() -> bool:
    """Whether the page asks by itself: that keeps no session from idling."""
    return "X-Background" in request.headers or request.endpoint in _BACKGROUND


def to_log_in() -> AnyResponse:
    """Lead to the log-in, and from there back."""
    back = request.full_path.rstrip("?") if request.method == "GET" else _form_of(request.referrer)
    if is_partial():
        shown = urlsplit(request.headers.get("HX-Current-URL", ""))
        back = f"{shown.path or '/'}?{shown.query}".rstrip("?")
        response = make_response("", 401)
        response.headers["HX-Redirect"] = f"/login?{urlencode({'next': back})}"
        return response
    return redirect("/login" if back == "/" else f"/login?{urlencode({'next': back})}")


def _form_of(referrer: str | None) -> str:
    """The page whose form was sent, as the browser says it; scripts fill it in there again."""
    shown = urlsplit(referrer or "")
    if shown.netloc != request.host or not shown.path.startswith("/"):
        return "/"
    return f"{shown.path}?{shown.query}".rstrip("?")


def _frame() -> dict[str, Any]:
    """What every template knows."""
    return {
        "who": g.get("who"),
        "rights": g.get("rights"),
        "project": g.get("project"),
        "place": navigation.current(request.path),
        "csrf_token": session.proof(),
        "layout": "bare.html" if is_partial() else "base.html",
        "theme": request.cookies.get(preferences.THEME, "auto"),
        "icons": assets.url(_ICONS),
    }


def _finish(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers.setdefault("Content-Security-Policy", policy())
    if _keeps_session(response):
        session.keep(response)
    return response


def _keeps_session(response: Response) -> bool:
    """A person did something; what a page fetches by itself does not count.

    The API ends idle sessions by the same rule, whatever cookies a browser still has.
    """
    in_use = g.get("who") is not None and response.status_code < 400
    told = any(name == "Set-Cookie" for name, _ in response.headers)
    return in_use and not told and not _is_background()


def _refused(refusal: Refusal) -> AnyResponse:
    """The API refused: a message where the page stays, a page of its own otherwise."""
    if refusal.status == 401:
        response = to_log_in()
        session.end(response)
        return response
    return _tell(refusal.status, str(refusal), refusal.hint, refusal.problem.get("request_id"))


def _http_error(error: HTTPException) -> AnyResponse:
    if error.response is not None:
        return error.get_response()
    return _tell(error.code or 500, error.description or error.name, None, None)


def _defect(error: Exception) -> AnyResponse:
    number = new_id()
    log.error("page_failed", exc_info=error, path=request.path, number=number)
    return _tell(
        500,
        "virtmgr failed to make this page because of a defect of its own",
        "find the number in the server's log and report it",
        number,
    )


def _tell(status: int, message: str, hint: str | None, number: str | None) -> AnyResponse:
    if is_partial():
        response = make_response("", status)
        response.headers["HX-Reswap"] = "none"
        hint = hint and formatting.sentence(hint)
        tell(response, toast(formatting.sentence(message), hint=hint, level="danger"))
        return response
    text = render_template("error.html", status=status, message=message, hint=hint, number=number)
    return make_response(text, status)
