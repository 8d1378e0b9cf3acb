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
    "GET /role-bindings/{binding}": "the list shows all of it",
    "GET /tokens/{token}": "the list shows all of it",
    "POST /images/upload": "browsers upload in pieces",
}
"""Routes that no person needs, and why."""

NOT_YET: Final[tuple[str, ...]] = ()
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
