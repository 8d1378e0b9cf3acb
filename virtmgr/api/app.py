"""The REST API as a Flask application."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import structlog
from flask import Flask, Request, Response, request

from virtmgr.api import docs, problems
from virtmgr.api.dispatch import dispatch
from virtmgr.api.read_cache import ReadCache
from virtmgr.api.routes import ROUTES
from virtmgr.api.routing import Route
from virtmgr.domain.ids import new_id
from virtmgr.services.container import Services

MAX_BODY: Final = 4 * 1024**2  # bytes; uploads lift it for themselves
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def create_app(services: Services) -> Flask:
    """The application that serves every route of ``virtmgr.api.routes``."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    cache = ReadCache()
    for route in ROUTES:
        route.check()
        view = _view(services, cache, route)
        app.add_url_rule(route.rule, route.name, view, methods=[route.method])
    docs.register(app)
    problems.register(app)
    _number_requests(app)
    return app


def _view(services: Services, cache: ReadCache, route: Route) -> Callable[..., Response]:
    def view(**path: str) -> Response:
        # The request itself and not Flask's proxy: streams outlive the request's context.
        whole: Request = request._get_current_object()  # type: ignore[attr-defined]
        return dispatch(services, cache, route, whole, path)

    return view


def _number_requests(app: Flask) -> None:
    """Every request has an id, in its answer and in every line that it logs."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-ID", "")
        number = given if _REQUEST_ID.fullmatch(given) else new_id()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=number)

    @app.after_request
    def finish(response: Response) -> Response:
        number: Any = structlog.contextvars.get_contextvars().get("request_id")
        response.headers["X-Request-ID"] = number
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response
