"""How the console answers what a person did: a message in the corner, and where to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flask import make_response, redirect, request
from markupsafe import Markup
from werkzeug.wrappers import Response

from virtmgr.console import hints


def is_partial() -> bool:
    """Whether htmx asks, and not the browser for a whole page."""
    return request.headers.get("HX-Request") == "true"


def toast(
    message: str, *, hint: str | None = None, level: str = "success", later: bool = False
) -> dict[str, Any]:
    """The event that shows a message, for ``tell``.

    :param level: success, info, warning or danger.
    :param later: on the page that is gone to.
    """
    found = pieces_of(hint)
    ways = [{"text": one.text, "path": one.path} for one in found if one.path]
    told = {"message": message, "hint": hints.plain(found) or None, "ways": ways}
    return {"toast": {**told, "level": level, "later": later}}


def pieces_of(hint: str | None) -> Sequence[hints.Piece]:
    """A hint with the console's ways, for the page that is asked for."""
    values = request.view_args or {}
    return hints.pieces(hint or "", values.get("project"), values.get("host"))


def hint(text: str | None) -> Markup:
    """A hint as pages show it: with links where the console has a way."""
    parts = (
        Markup('<a href="{}">{}</a>').format(one.path, one.text) if one.path else one.text
        for one in pieces_of(text)
    )
    return Markup("").join(parts)


def tell(response: Response, events: Mapping[str, Any]) -> None:
    """Let the page hear events with this answer (ASCII, as headers are)."""
    response.headers["HX-Trigger"] = json.dumps(events)


def done(message: str, *, goto: str | None = None, refresh: str | None = None) -> Response:
    """It is done, or begun: say so and stay; or go to another page.

    :param refresh: an event for the page's parts that listen to it, such as ``live-workload``.
    """
    if not is_partial():
        return redirect(goto or request.referrer or "/", 303)
    response = make_response("", 200 if goto else 204)
    events = toast(message, later=goto is not None)
    if refresh is not None:
        events[refresh] = {}
    tell(response, events)
    if goto is not None:
        response.headers["HX-Redirect"] = goto  # a whole page: it has styles and scripts of its own
    return response


def reloaded() -> Response:
    """It is done, and concerns all of the page: read it again."""
    if not is_partial():
        return redirect(request.referrer or "/", 303)
    response = make_response("", 204)
    response.headers["HX-Refresh"] = "true"
    return response
