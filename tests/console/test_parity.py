"""Everything that the API can do, the console can: its routes against what the console asks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

import virtmgr.console
from tests.console.asked import ANY, Asked, asked
from virtmgr.api.routes import ROUTES

PACKAGE: Final = Path(virtmgr.console.__file__).parent

FOR_PROGRAMS: Final = {
    "GET /health": "for load balancers and monitors",
    "GET /version": "for programs",
    "GET /projects/{project}/workloads": "the list of all projects does it, with its filter",
    "GET /projects/{project}/volumes": "the list of all projects does it, with its filter",
    "GET /tokens/{token}": "the list shows all of it",
    "GET /role-bindings/{binding}": "the list shows all of it",
}
"""Routes that no person needs, and why."""

NOT_YET: Final = (
    "GET /ca",
    "POST /ca/retire",
    "POST /ca/rotate",
    "GET /clusters",
    "POST /clusters",
    "DELETE /clusters/{cluster}",
    "GET /clusters/{cluster}",
    "PATCH /clusters/{cluster}",
    "GET /failovers",
    "GET /failovers/{failover}",
    "POST /host-tokens",
    "POST /hosts",
    "POST /hosts/scan-key",
    "DELETE /hosts/{host}",
    "PATCH /hosts/{host}",
    "POST /hosts/{host}/confirm-off",
    "POST /hosts/{host}/cordon",
    "POST /hosts/{host}/drain",
    "POST /hosts/{host}/drain/cancel",
    "POST /hosts/{host}/fence",
    "GET /hosts/{host}/fence-devices",
    "DELETE /hosts/{host}/fence-devices/{name}",
    "PUT /hosts/{host}/fence-devices/{name}",
    "POST /hosts/{host}/fence/test",
    "POST /hosts/{host}/join-token",
    "POST /hosts/{host}/maintenance",
    "POST /hosts/{host}/reinstall",
    "POST /hosts/{host}/renew-certificates",
    "POST /hosts/{host}/retry",
    "POST /hosts/{host}/uncordon",
    "POST /hosts/{host}/upgrade",
    "POST /images/build",
    "POST /images/import",
    "POST /images/prune",
    "POST /images/upload",
    "POST /images/uploads",
    "GET /images/uploads/{upload}",
    "PATCH /images/uploads/{upload}",
    "DELETE /images/{image}",
    "GET /images/{image}",
    "PATCH /images/{image}",
    "GET /migrations",
    "GET /migrations/{migration}",
    "POST /migrations/{migration}/cancel",
    "POST /networks",
    "GET /operations/{operation}",
    "GET /operations/{operation}/log",
    "GET /pools",
    "POST /projects",
    "DELETE /projects/{project}",
    "PATCH /projects/{project}",
    "GET /projects/{project}/networks",
    "POST /projects/{project}/networks",
    "DELETE /projects/{project}/networks/{network}",
    "GET /projects/{project}/networks/{network}",
    "PATCH /projects/{project}/networks/{network}",
    "GET /projects/{project}/networks/{network}/addresses",
    "GET /projects/{project}/quota",
    "PATCH /projects/{project}/quota",
    "POST /projects/{project}/volumes",
    "DELETE /projects/{project}/volumes/{volume}",
    "GET /projects/{project}/volumes/{volume}",
    "PATCH /projects/{project}/volumes/{volume}",
    "POST /projects/{project}/workloads",
    "PATCH /projects/{project}/workloads/{workload}",
    "POST /projects/{project}/workloads/{workload}/clone",
    "POST /projects/{project}/workloads/{workload}/console",
    "POST /projects/{project}/workloads/{workload}/exec",
    "GET /projects/{project}/workloads/{workload}/files",
    "PUT /projects/{project}/workloads/{workload}/files",
    "GET /projects/{project}/workloads/{workload}/logs",
    "POST /projects/{project}/workloads/{workload}/move",
    "POST /projects/{project}/workloads/{workload}/nics",
    "DELETE /projects/{project}/workloads/{workload}/nics/{index}",
    "POST /projects/{project}/workloads/{workload}/pause",
    "GET /projects/{project}/workloads/{workload}/placement",
    "POST /projects/{project}/workloads/{workload}/publish",
    "POST /projects/{project}/workloads/{workload}/restart",
    "POST /projects/{project}/workloads/{workload}/resume",
    "GET /projects/{project}/workloads/{workload}/usage",
    "POST /projects/{project}/workloads/{workload}/vnc",
    "POST /projects/{project}/workloads/{workload}/volumes",
    "DELETE /projects/{project}/workloads/{workload}/volumes/{volume}",
    "GET /role-bindings",
    "POST /role-bindings",
    "DELETE /role-bindings/{binding}",
    "GET /schema/workload",
    "GET /tokens",
    "POST /users",
    "DELETE /users/{user}",
    "GET /users/{user}",
    "PATCH /users/{user}",
    "PUT /users/{user}/password",
)
"""What no page does yet. This may only shrink."""


def key(method: str, path: str) -> str:
    """A route whatever its parameters are called."""
    return f"{method} {re.sub(r'{[^}]*}', '{}', path)}"


def covers(request: Asked, method: str, path: str) -> bool:
    """Whether the request is one to this route; ``ANY`` stands for one segment, or any method."""
    if request.method not in (ANY, method):
        return False
    pattern = re.escape(re.sub(r"{[^}]*}", "{}", request.path)).replace(re.escape(ANY), "[^/]+")
    return re.fullmatch(pattern, re.sub(r"{[^}]*}", "{}", path)) is not None


@pytest.fixture(scope="module")
def requests() -> set[Asked]:
    return asked(PACKAGE)


def test_the_console_does_what_the_api_can(requests: set[Asked]) -> None:
    gaps = {
        key(route.method, route.path): route.summary
        for route in ROUTES
        if not route.deprecated
        and not any(covers(request, route.method, route.path) for request in requests)
    }
    allowed = {key(*each.split(" ")) for each in (*FOR_PROGRAMS, *NOT_YET)}
    new = [f"{name}: {summary}" for name, summary in gaps.items() if name not in allowed]
    assert new == [], "the console lacks these: make a page do it, or say why nobody needs it"
    assert allowed - gaps.keys() == set(), "these are no gaps any more: take them out"


def test_the_console_asks_for_nothing_that_is_not_there(requests: set[Asked]) -> None:
    at: dict[str, list[Asked]] = {}  # a call may ask one of several, by what it is given
    for request in requests:
        at.setdefault(request.where, []).append(request)
    unknown = [
        [f"{request.method} {request.path} ({request.where})" for request in several]
        for several in at.values()
        if not any(covers(each, route.method, route.path) for each in several for route in ROUTES)
    ]
    assert unknown == []


def test_requests_are_read_from_source(tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text(
        '_ONE = "/hosts/{host}"\n'
        'LIST = ListPage(noun="users", path="/users")\n'
        "def show(verb, here):\n"
        '    path = "/a" if here else "/b"\n'
        "    g.rest.get(_ONE, host=here)\n"
        '    g.rest.ask("POST", _ONE + "/drain", {})\n'
        '    g.rest.ask("POST", f"{_ONE}/{verb}")\n'
        "    rest.stream(path, None, {})\n"
        '    other.get("/not-this")\n'
    )
    assert {f"{each.method} {each.path}" for each in asked(tmp_path)} == {
        "GET /users",
        "GET /hosts/{host}",
        "POST /hosts/{host}/drain",
        "POST /hosts/{host}/*",
        "GET /a",
        "GET /b",
    }
    general = Asked("POST", "/hosts/{host}/*", "")
    assert covers(general, "POST", "/hosts/{name}/cordon")
    assert not covers(general, "POST", "/hosts/{name}/drain/cancel")
    assert not covers(general, "GET", "/hosts/{name}/cordon")
