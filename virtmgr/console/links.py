"""Where the page of a thing is that the log or an operation names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

_PLACES: Final = {
    "host": "/hosts",
    "cluster": "/clusters",
    "image": "/images",
    "project": "/projects",
    "quota": "/projects",
    "user": "/users",
    "operation": "/operations",
}
_IN_PROJECT: Final = {"workload": "workloads", "volume": "volumes", "network": "networks"}


def to(target: Mapping[str, Any], project: Mapping[str, Any] | None) -> str | None:
    """By ids: what was renamed is found, and what has its name now is not taken for it.

    None for what has no page.
    """
    kind, id = target["type"], quote(target["id"], safe="")
    if kind in _PLACES:
        return f"{_PLACES[kind]}/{id}"
    if kind in _IN_PROJECT and project is not None:
        return (
            f"/projects/{quote(project['name'] or project['id'], safe='')}/{_IN_PROJECT[kind]}/{id}"
        )
    return f"/networks/{id}" if kind == "network" else None
