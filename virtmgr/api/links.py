"""OpenAPI links: what can be asked next of what an answer has made.

They follow from the URL table: whoever POSTs to ``/networks`` finds the new one's id at ``/id`` in
the answer, and every route below ``/networks/{network}`` takes it. An answer that is an operation
names what it is about at ``/target/id``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from virtmgr.api.routing import Mode, Route

_OPERATION = "/operations/{operation}"


def links(route: Route, routes: Iterable[Route]) -> dict[str, Any]:
    """Links of the answer to ``route`` that says that it is done or begun."""
    if route.mode is Mode.START:
        found = _to(routes, _OPERATION, "operation", "/id", {})
        return found | _to_new(route, routes, "/target/id")
    return _to_new(route, routes, "/id")


def _to_new(route: Route, routes: Iterable[Route], pointer: str) -> dict[str, Any]:
    """Links to every route about the resource that a POST to its collection has made."""
    if route.method != "POST" or route.path.endswith("}"):
        return {}
    given = {name: f"$request.path.{name}" for name in route.parameters}
    found: dict[str, Any] = {}
    for other in routes:
        added = set(other.parameters) - set(given)
        if len(added) == 1:
            parameter = added.pop()
            below = f"{route.path}/{{{parameter}}}"
            if other.path == below or other.path.startswith(below + "/"):
                found |= _to([other], other.path, parameter, pointer, given)
    return found


def _to(
    routes: Iterable[Route], path: str, parameter: str, pointer: str, given: dict[str, str]
) -> dict[str, Any]:
    parameters = {**given, parameter: f"$response.body#{pointer}"}
    return {
        route.name: {"operationId": route.name, "parameters": parameters}
        for route in routes
        if route.path == path
    }
