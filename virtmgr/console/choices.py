"""Names that forms let people choose from."""

from __future__ import annotations

from typing import Any, Final

from flask import g

_QUERY: Final = {"limit": 500, "fields": "name"}


def projects() -> list[str]:
    """Those that may be seen."""
    return _names(g.rest.get("/projects", _QUERY)["items"])


def clusters() -> list[str]:
    """All of them."""
    return _names(g.rest.get("/clusters", _QUERY)["items"])


def _names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]
