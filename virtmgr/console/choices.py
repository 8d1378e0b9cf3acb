"""Names that forms let people choose from."""

from __future__ import annotations

from typing import Any, Final

from flask import g

from virtmgr.domain.access import Action

_QUERY: Final = {"limit": 500, "fields": "name"}


def projects(action: Action = Action.PROJECTS_VIEW) -> list[str]:
    """Those in which the viewer may do something."""
    names = _names(g.rest.get("/projects", _QUERY)["items"])
    return [name for name in names if g.rights.allows(action, name)]


def clusters() -> list[str]:
    """All of them."""
    return _names(g.rest.get("/clusters", _QUERY)["items"])


def _names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]
