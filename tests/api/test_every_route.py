"""Every route of the URL table refuses whoever may not: none can be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest
from flask import Flask

from tests.api.conftest import as_new_user, initialise, open_services
from tests.api.contract import Api, Contract
from virtmgr.api.app import create_app
from virtmgr.api.routes import ROUTES
from virtmgr.api.routing import Access, Mode, Route
from virtmgr.domain.access import RULES, Scope
from virtmgr.domain.project import Role
from virtmgr.ports.clock import SystemClock

_SMALLER = {
    Role.ADMIN: Role.OPERATOR,
    Role.OPERATOR: Role.MEMBER,
    Role.MEMBER: Role.VIEWER,
    Role.VIEWER: None,
}
_DOCUMENTATION = {"docs.openapi", "docs.page", "docs.start", "docs.assets"}


@pytest.fixture(scope="module")
def api(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory, contract: Contract
) -> Iterator[Api]:
    """One for all tests here: they change next to nothing."""
    directory = tmp_path_factory.mktemp("routes")
    with open_services(empty_database, directory, SystemClock()) as services:
        yield initialise(create_app(services), services, contract)


@pytest.fixture(scope="module")
def as_role(api: Api) -> Callable[..., Api]:
    assert api.post("/projects", {"name": "other"}).status == 201
    return cache(partial(as_new_user, api))


def _name(route: Route) -> str:
    return f"{route.method} {route.path}"


def _path(route: Route, project: str = "default") -> str:
    """The route's path; what it names need not exist, as access is decided before."""
    path = route.path.replace("{project}", project)
    for parameter in route.parameters:
        path = path.replace("{" + parameter + "}", "0")
    return path


_PRIVATE = [route for route in ROUTES if route.access is not Access.PUBLIC]
_IN_PROJECT = [route for route in _PRIVATE if "project" in route.parameters]
_ROLES = [
    route
    for route in _PRIVATE
    if route.action is not None and RULES[route.action].scope is not Scope.SELF
]


def test_the_table_is_all_that_there_is(app: Flask) -> None:
    served = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        if rule.endpoint not in _DOCUMENTATION and rule.endpoint != "static"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert served == {(route.method, route.rule) for route in ROUTES}
    assert len({route.name for route in ROUTES}) == len(ROUTES)


def test_only_these_routes_are_public() -> None:
    public = {route.path for route in ROUTES if route.access is Access.PUBLIC}
    assert public == {"/version", "/health", "/login"}


@pytest.mark.parametrize("route", _PRIVATE, ids=_name)
def test_it_refuses_without_a_token(route: Route, anonymous: Api) -> None:
    for headers in ({}, {"Authorization": "Bearer vmt_wrong"}, {"Authorization": "Basic eDp5"}):
        refused = anonymous.call(route.method, _path(route), headers=headers)
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", _IN_PROJECT, ids=_name)
def test_it_hides_a_foreign_project(route: Route, as_role: Callable[..., Api]) -> None:
    stranger = as_role(Role.MEMBER, "other")
    hidden = stranger.call(route.method, _path(route))
    missing = stranger.call(route.method, _path(route, "nowhere"))
    assert hidden.status == missing.status == 404
    assert hidden.body["detail"].replace("default", "nowhere") == missing.body["detail"]


@pytest.mark.parametrize("route", _ROLES, ids=_name)
def test_it_refuses_too_small_a_role(route: Route, as_role: Callable[..., Api]) -> None:
    assert route.action is not None
    smaller = _SMALLER[RULES[route.action].role]
    caller = as_role(smaller)
    refused = caller.call(route.method, _path(route))
    # Without any role there is no project that may be seen, and nothing else to look at.
    hidden = smaller is None and "project" in route.parameters
    assert refused.status == (404 if hidden else 403)


@pytest.mark.parametrize("route", _ROLES, ids=_name)
def test_it_lets_the_role_in(route: Route, as_role: Callable[..., Api]) -> None:
    assert route.action is not None
    query = {"dry_run": "true"} if route.mode in (Mode.CHANGE, Mode.START) else {}
    caller = as_role(RULES[route.action].role)
    answer = caller.call(route.method, _path(route), query=query)
    assert answer.status not in (401, 403)


@pytest.mark.parametrize("route", ROUTES, ids=_name)
def test_it_refuses_an_unknown_query_parameter(route: Route, api: Api) -> None:
    refused = api.call(route.method, _path(route), query={"no-such": "1"})
    assert refused.status == 422
    assert "no-such" in {error["field"] for error in refused.body["errors"]}


def test_unknown_paths_and_methods_are_problems(api: Api) -> None:
    assert (api.get("/nothing").status, api.get("/nothing").code) == (404, "not_found")
    wrong = api.call("PUT", "/projects")
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["Allow"]
