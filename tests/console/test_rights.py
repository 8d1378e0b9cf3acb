"""What somebody may not do is not offered, anywhere; and the table of that says what the API does.

Pages are read as they are sent, without a browser: what a viewer, a member and operators see.
"""

from __future__ import annotations

import ast
import inspect
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pytest
from flask import Flask
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import MapAdapter

import virtmgr.console
from tests.api.contract import Api
from tests.api.host import PretendHost
from tests.console.asked import ANY, Asked, asked
from tests.console.test_parity import covers
from virtmgr.api.routes import ROUTES
from virtmgr.console import session
from virtmgr.console.app import create_console
from virtmgr.console.rights import NEEDED, SCREENS, Rights
from virtmgr.domain.access import Action, Principal, Verdict, may
from virtmgr.domain.ids import new_id
from virtmgr.domain.project import Role
from virtmgr.services.container import Services

PACKAGE: Final = Path(virtmgr.console.__file__).parent
ANYBODYS: Final = {
    "account.check": "logs in",
    "account.log_out": "ends the own session",
    "frame.choose_project": "a cookie",
    "settings.prefer": "a cookie",
    "consoles.ticket": "by the screen: SCREENS",
    "operations.cancel": "by what it is about: the API tells",
    "operations.retry": "by what it is about: the API tells",
}
"""What changes nothing that rights are about, or is decided elsewhere."""


# ---- the table, held against the console's source and the API's routes


def in_functions() -> Mapping[str, list[Asked]]:
    """What each function of a page asks of the API, by MODULE.FUNCTION; and what it calls."""
    found: dict[str, list[Asked]] = {}
    spans: list[tuple[str, str, range]] = []
    for path in sorted((PACKAGE / "pages").glob("*.py")):
        for part in ast.parse(path.read_text()).body:
            if isinstance(part, ast.FunctionDef):
                lines = range(part.lineno, (part.end_lineno or 0) + 1)
                spans.append((path.name, f"{path.stem}.{part.name}", lines))
    for request in asked(PACKAGE):
        name, _, line = request.where.partition(":")
        for file, function, lines in spans:
            if file == name and int(line) in lines:
                found.setdefault(function, []).append(request)
    return found


def actions_of(request: Asked) -> set[Action]:
    """What the API's routes take that the request may be one to; of a verb in the path all."""
    return {
        route.action
        for route in ROUTES
        if not route.deprecated
        and route.method != "GET"
        and route.action is not None
        and covers(request, route.method, route.path)
    }


def test_the_table_says_what_the_api_takes(console: Flask) -> None:
    asking, wrong, told = in_functions(), {}, 0
    for endpoint, function in console.view_functions.items():
        if endpoint not in NEEDED:
            continue
        place = f"{inspect.unwrap(function).__module__.rpartition('.')[2]}.{function.__name__}"
        requests = [each for each in asking.get(place, ()) if each.method not in ("GET", ANY)]
        taken = [actions_of(each) for each in requests]
        told += len(taken)
        own = {*NEEDED[endpoint]}
        unmet = [actions for actions in taken if actions and not actions & closure(own)]
        if unmet:
            wrong[endpoint] = unmet
    assert wrong == {}
    assert told > 50  # the source was read


def closure(actions: set[Action]) -> set[Action]:
    """With what is asked of networks that all share, and what routes take where services ask for
    more: for tokens and passwords of others, for giving a migration up."""
    shared = {Action(f"shared_{one}") for one in actions if one.startswith("networks.")}
    tokens = {Action.TOKENS_CREATE, Action.TOKENS_DELETE, Action.USERS_UPDATE}
    account = {Action.ACCOUNT_UPDATE} if actions & tokens else set()
    given_up = {Action.MIGRATIONS_VIEW} if Action.WORKLOADS_MOVE in actions else set()
    return actions | shared | account | given_up


def test_everything_that_changes_something_stands_in_the_table(console: Flask) -> None:
    changing = {
        rule.endpoint
        for rule in console.url_map.iter_rules()
        if (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}
    }
    assert changing - NEEDED.keys() == set(ANYBODYS)
    assert NEEDED.keys() - console.view_functions.keys() == set()


def test_screens_take_what_the_api_takes() -> None:
    one = "/projects/{project}/workloads/{workload}"
    for screen, verb in {
        "display": "vnc",
        "serial": "console",
        "shell": "exec",
        "log": "logs",
    }.items():
        assert actions_of(Asked("POST", f"{one}/{verb}", "")) == {SCREENS[screen]}


# ---- who is who


def whoami(role: str, project: str | None = None, **token: Any) -> dict[str, Any]:
    held = {"role": role, "project": {"id": "1", "name": project} if project else None}
    user = {"id": "u", "name": "ada"}
    return {"user": user, "roles": [held], "token_role": None, "token_project": None, **token}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("project", [None, "shop"])
def test_rights_are_those_of_the_domain(role: Role, project: str | None) -> None:
    rights = Rights(whoami(role, project))
    principal = Principal("u", "ada", ((role, project),))
    for action in Action:
        for where in (None, "shop", "lab"):
            verdict = may(principal, action, where)
            assert rights.allows(action, where) == (verdict is Verdict.ALLOWED)
        assert rights.allows(action, "1") == rights.allows(action, "shop" if project else "1")


def test_tokens_narrow() -> None:
    shop = {"id": "1", "name": "shop"}
    assert not Rights(whoami("admin", token_role="viewer")).allows(Action.HOSTS_UPDATE)
    assert not Rights(whoami("admin", token_project=shop)).allows(Action.HOSTS_UPDATE)
    assert Rights(whoami("admin", token_project=shop)).allows(Action.WORKLOADS_POWER, "shop")
    assert not Rights(whoami("admin", token_role="operator")).allows(Action.ACCOUNT_UPDATE)


def test_what_belongs_to_all_or_to_a_project() -> None:
    member, operator = Rights(whoami("member", "shop")), Rights(whoami("operator"))
    shared, own = {"network": "n"}, {"network": "n", "project": "shop"}
    assert member.reaches("networks.edit", own)
    assert not member.reaches("networks.edit", shared)
    assert operator.reaches("networks.edit", shared)
    assert member.reaches("networks.create", {})
    assert not member.reaches("workload_actions.ask_publish", {"project": "shop"})
    assert not Rights(whoami("viewer")).reaches("workload_create.show", {})


# ---- every page, as somebody sees it


class Offered(HTMLParser):
    """What a page leads to, and what its forms and buttons post to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.posts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a" and given.get("href", "").startswith("/") and "download" not in given:
            self.links.append(given["href"])
        if tag == "form" and given.get("method", "").lower() == "post":
            self.posts.append(given["action"])
        if "hx-post" in given:
            self.posts.append(given["hx-post"])


@dataclass
class Walk:
    """One person's way through all pages that links lead to, one of each shape."""

    console: Flask
    api: Api
    routes: MapAdapter
    statuses: dict[str, int] = field(default_factory=dict)
    posts: dict[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)

    def run(self) -> None:
        browser = self.console.test_client()
        browser.set_cookie(session.COOKIE, f"x~{self.api.token}", domain="localhost", secure=True)
        waiting, seen = deque(["/"]), set()
        while waiting:
            address = waiting.popleft()
            shape = self._match(address, "GET")
            if shape is None or shape[0] in seen or shape[0] in ("frame.live", "assets.serve"):
                continue
            seen.add(shape[0])
            answer = browser.get(address, base_url="https://localhost")
            self.statuses[f"{shape[0]} {address}"] = answer.status_code
            page = Offered(answer.text if answer.mimetype == "text/html" else "")
            waiting.extend(page.links)
            for path in page.posts:
                found = self._match(path, "POST")
                assert found is not None, f"{address} posts to {path}, which is nowhere"
                self.posts[path] = found

    def _match(self, address: str, method: str) -> tuple[str, Mapping[str, Any]] | None:
        try:
            return self.routes.match(unquote(urlsplit(address).path), method=method)
        except (NotFound, MethodNotAllowed):
            return None


@pytest.fixture
def console(app: Flask) -> Flask:
    return create_console(app)


@pytest.fixture
def furnished(api: Api, services: Services) -> Api:
    """A thing of each noun, and a host that runs what there is."""
    host = PretendHost(services)
    api.post("/projects", {"name": "shop"})
    api.post("/projects/shop/networks", {"name": "own", "type": "nat", "ipv4": "10.9.0.0/24"})
    api.post("/networks", {"name": "shared", "type": "nat", "ipv4": "10.8.0.0/24"})
    for name in ("a", "b"):
        body = {"name": name, "kind": "container", "image": "busybox"}
        assert api.post("/projects/shop/workloads", body).status == 202
    api.post("/projects/shop/volumes", {"name": "v", "size": "1GiB"})
    host.converge()
    assert api.post("/projects/shop/workloads/b/stop").status == 202
    host.converge()
    assert api.post("/host-tokens", {"name": "coming"}).status == 201
    return api


def person(api: Api, role: str, project: str | None) -> Api:
    name = "user-" + new_id()[-12:]
    assert api.post("/users", {"name": name}).status == 201
    body = {"user": name, "role": role, "project": project}
    assert api.post("/role-bindings", body).status == 201
    return api.as_token(api.post("/tokens", {"name": "t", "user": name}).body["token"])


PEOPLE: Final = [
    *[(role, None) for role in ("viewer", "member", "operator", "admin")],
    *[(role, "shop") for role in ("viewer", "member", "operator")],
]


@pytest.mark.parametrize(("role", "project"), PEOPLE)
def test_nothing_is_offered_that_the_api_refuses(
    furnished: Api, console: Flask, role: str, project: str | None
) -> None:
    walk = Walk(console, person(furnished, role, project), console.url_map.bind("console"))
    walk.run()
    refused = {address for address, status in walk.statuses.items() if status != 200}
    assert refused == set(), "a link leads to what its viewer may not see"
    names = {each["id"]: each["name"] for each in furnished.get("/projects").body["items"]}
    principal = Principal("u", "u", ((Role(role), project),))
    asking = in_functions()
    for path, (endpoint, values) in walk.posts.items():
        if endpoint in ANYBODYS:
            continue
        function = inspect.unwrap(console.view_functions[endpoint])
        place = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        taken = [actions_of(each) for each in asking.get(place, ()) if each.method != "GET"]
        where = values.get("project")

        def allowed(actions: set[Action], where: str | None = where) -> bool:
            places = [where] if where is not None else [None, "shop"]
            return any(
                may(principal, one, names.get(at or "", at)) is Verdict.ALLOWED
                for one in actions
                for at in places
            )

        assert any(allowed(actions) for actions in taken if actions) or not any(taken), path
    if role == "viewer":
        client = console.test_client()
        client.set_cookie(session.COOKIE, f"x~{walk.api.token}", domain="localhost", secure=True)
        page = client.get("/hosts", base_url="https://localhost").text
        proof = page.partition('"X-CSRF-Token": "')[2].partition('"')[0]
        for path, (endpoint, _) in walk.posts.items():
            if endpoint not in ("account.log_out", "account.end_others", "account.revoke"):
                headers = {"X-CSRF-Token": proof}
                answer = client.post(path, base_url="https://localhost", headers=headers)
                assert answer.status_code != 403, path


def test_a_page_that_is_not_for_somebody_says_so(furnished: Api, console: Flask) -> None:
    client = console.test_client()
    who = person(furnished, "viewer", "shop")
    client.set_cookie(session.COOKIE, f"x~{who.token}", domain="localhost", secure=True)
    told = client.get("/hosts/add", base_url="https://localhost")
    assert told.status_code == 403
    assert "role operator everywhere" in told.text
    hidden = client.get("/projects/default/workloads/a/edit", base_url="https://localhost")
    assert hidden.status_code == 404
    for path, offered in (("/workloads", False), ("/projects/shop/workloads/a/console", True)):
        assert ("/console" in client.get(path, base_url="https://localhost").text) or not offered
    log = client.get("/projects/shop/workloads/a/console", base_url="https://localhost").text
    assert 'data-screen="log"' in log
